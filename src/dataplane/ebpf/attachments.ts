// SPDX-License-Identifier: Apache-2.0
// What of the engine is in one pod's netns besides map entries: local routes, TC filters, one link.
import type { PlannedChange } from "../../core/ports/plan.ts";
import type { Link, NativeBinding } from "../../native/binding.ts";
import type { BpfNode, BpfPod } from "../../native/bpf.ts";
import { glance } from "../glance.ts";
import { routeText } from "../routing-text.ts";
import { localRoutes, missingLocalRoutes, removeLocalRoutes } from "./local-routes.ts";

const LO_INDEX = 1;
const LOOKUP_PROGRAM = "ambient_lookup";

/** A program at an interface of the pod. */
interface Filter {
  readonly index: number;
  readonly name: string;
  readonly direction: "ingress" | "egress";
  readonly program: string;
}

const LOOPBACK_FILTER: Filter = { index: LO_INDEX, name: "lo", direction: "ingress", program: "ambient_loopback" };

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

/** What `attachLookup` and `attachInterface` would write. Pure. */
export function plannedAttachments(pod: BpfPod, link: Link): readonly PlannedChange[] {
  const filters = [LOOPBACK_FILTER, ...interfaceFilters(link)];
  const programs = [
    `sk_lookup of the netns: ${LOOKUP_PROGRAM}`,
    ...filters.map(({ name, direction, program }) => `TC ${direction} of ${name}: ${program}`),
  ];
  return [
    {
      what: "local routes in the pod",
      text: localRoutes(pod)
        .map((route) => routeText(route, "lo"))
        .join("\n"),
    },
    { what: "BPF programs in the pod", text: programs.join("\n") },
  ];
}

export class Attachments {
  constructor(
    private readonly binding: NativeBinding,
    private readonly bpf: BpfNode,
  ) {}

  /** Local addresses for ztunnel's ends, and who answers at them. */
  attachLookup(netns: number, cookie: bigint, pod: BpfPod): void {
    this.binding.routeReplace(netns, localRoutes(pod));
    this.bpf.linkNetns(LOOKUP_PROGRAM, netns, lookupPin(cookie));
    this.#attach(netns, [LOOPBACK_FILTER]);
  }

  /** Inbound traffic, and the guard for what leaves. */
  attachInterface(netns: number, link: Link): void {
    this.#attach(netns, interfaceFilters(link));
  }

  #attach(netns: number, filters: readonly Filter[]): void {
    for (const { index, direction, program } of filters) this.bpf.tcAttach(netns, index, direction, program);
  }

  /** Sentences about what is missing or of another version. */
  differences(netns: number, inode: bigint, cookie: bigint, pod: BpfPod, link: Link): string[] {
    const { programs } = this.bpf;
    const sentences: string[] = [];
    const lookup = this.bpf.link(lookupPin(cookie));
    if (lookup === undefined || lookup.target !== inode) sentences.push("the sk_lookup program is not attached");
    else if (lookup.program !== programs[LOOKUP_PROGRAM]) sentences.push("the sk_lookup program is of another version");
    const states = new Map([LO_INDEX, link.index].map((index) => [index, this.binding.bpfFilterState(netns, index)]));
    for (const { index, name, direction, program } of [LOOPBACK_FILTER, ...interfaceFilters(link)]) {
      const found = states.get(index)?.[direction] ?? 0;
      if (found === programs[program]) continue;
      const what = found === 0 ? "is missing" : "is of another version";
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
function interfaceFilters({ index, name, mac }: Link): readonly Filter[] {
  const layer = mac === "" ? "_l3" : "";
  return [
    { index, name, direction: "ingress", program: `ambient_arrive${layer}` },
    { index, name, direction: "egress", program: `ambient_leave${layer}` },
  ];
}
