// SPDX-License-Identifier: Apache-2.0
// What of the engine is in one pod's netns besides map entries: local routes, TC filters, one link.
import type { Link, NativeBinding } from "../../native/binding.ts";
import type { BpfNode, BpfPod } from "../../native/bpf.ts";
import { glance } from "../glance.ts";
import { localRoutes, missingLocalRoutes, removeLocalRoutes } from "./local-routes.ts";

const LO_INDEX = 1;

/** The pod's one interface, where its traffic comes in and leaves. */
export function podInterface(binding: NativeBinding, netns: number): Link | undefined {
  const [first, ...more] = plainInterfaces(binding, netns);
  return more.length === 0 ? first : undefined;
}

/**
 * Interfaces that carry traffic: those that are up or have an address. Tunnel devices of loaded modules lie in
 * every netns, down; an interface that is down for a moment keeps its address.
 */
export function plainInterfaces(binding: NativeBinding, netns: number): readonly Link[] {
  const { links, addresses } = glance(binding, netns);
  return links.filter(
    ({ index, loopback, up }) => !loopback && (up || addresses.some(({ ifindex }) => ifindex === index)),
  );
}

export class Attachments {
  constructor(
    private readonly binding: NativeBinding,
    private readonly bpf: BpfNode,
  ) {}

  /** Local addresses for ztunnel's ends, and who answers at them. */
  attachLookup(netns: number, cookie: bigint, pod: BpfPod): void {
    this.binding.routeReplace(netns, localRoutes(pod));
    this.bpf.linkNetns("ambient_lookup", netns, lookupPin(cookie));
    this.bpf.tcAttach(netns, LO_INDEX, "ingress", "ambient_loopback");
  }

  /** Inbound traffic, and the guard for what leaves. */
  attachInterface(netns: number, link: Link): void {
    const { arrive, leave } = programsOf(link);
    this.bpf.tcAttach(netns, link.index, "ingress", arrive);
    this.bpf.tcAttach(netns, link.index, "egress", leave);
  }

  /** Sentences about what is missing or of another version. */
  differences(netns: number, inode: bigint, cookie: bigint, pod: BpfPod, link: Link): string[] {
    const { programs } = this.bpf;
    const sentences: string[] = [];
    const lookup = this.bpf.link(lookupPin(cookie));
    if (lookup === undefined || lookup.target !== inode) sentences.push("the sk_lookup program is not attached");
    else if (lookup.program !== programs.ambient_lookup) sentences.push("the sk_lookup program is of another version");
    const { arrive, leave } = programsOf(link);
    const filters = [
      {
        name: "lo",
        direction: "ingress",
        found: this.binding.bpfFilterState(netns, LO_INDEX).ingress,
        wanted: "ambient_loopback",
      },
      { name: link.name, direction: "ingress", found: 0, wanted: arrive },
      { name: link.name, direction: "egress", found: 0, wanted: leave },
    ];
    const state = this.binding.bpfFilterState(netns, link.index);
    for (const { name, direction, found, wanted } of filters) {
      const program = name === "lo" ? found : direction === "ingress" ? state.ingress : state.egress;
      if (program === programs[wanted]) continue;
      const what = program === 0 ? "is missing" : "is of another version";
      sentences.push(`the TC ${direction} filter of ${name} ${what}`);
    }
    return [...sentences, ...missingLocalRoutes(this.binding, netns, pod)];
  }

  /** True when it was attached to the netns, as far as pins tell. */
  present(cookie: bigint): boolean {
    return this.bpf.link(lookupPin(cookie)) !== undefined;
  }

  /** The steering first, so that nothing is turned to an address where nobody answers. Idempotent. */
  detachInterfaces(netns: number): void {
    for (const { index, loopback } of this.binding.links(netns)) {
      if (!loopback) this.binding.bpfFilterDetach(netns, index);
    }
  }

  detachLookup(netns: number, cookie: bigint): void {
    this.binding.bpfFilterDetach(netns, LO_INDEX);
    this.bpf.unpin(`pods/${cookie}`);
    removeLocalRoutes(this.binding, netns);
  }
}

function lookupPin(cookie: bigint): string {
  return `pods/${cookie}/lookup`;
}

/** A device without link-layer headers (tun, netkit in L3 mode) has no address either. */
function programsOf({ mac }: Link): { readonly arrive: string; readonly leave: string } {
  return mac === ""
    ? { arrive: "ambient_arrive_l3", leave: "ambient_leave_l3" }
    : { arrive: "ambient_arrive", leave: "ambient_leave" };
}
