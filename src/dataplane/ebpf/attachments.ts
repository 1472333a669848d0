// SPDX-License-Identifier: Apache-2.0
// What of the engine is in one pod's netns besides map entries: local routes, TC filters, one link.
import { SPREAD_RANGE } from "../../core/constants.ts";
import { codeOf } from "../../core/errors.ts";
import type { AddressFamily, Link, NativeBinding, RouteSpec } from "../../native/binding.ts";
import type { BpfNode, BpfPod } from "../../native/bpf.ts";
import { glance } from "../glance.ts";
import { isShadow } from "./shadow.ts";

const LO_INDEX = 1;
const LOCAL_TABLE = 255;

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
    this.binding.routeReplace(netns, routesOf(pod));
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
        found: this.bpf.tcState(netns, LO_INDEX).ingress,
        wanted: "ambient_loopback",
      },
      { name: link.name, direction: "ingress", found: 0, wanted: arrive },
      { name: link.name, direction: "egress", found: 0, wanted: leave },
    ];
    const state = this.bpf.tcState(netns, link.index);
    for (const { name, direction, found, wanted } of filters) {
      const program = name === "lo" ? found : direction === "ingress" ? state.ingress : state.egress;
      if (program === programs[wanted]) continue;
      const what = program === 0 ? "is missing" : "is of another version";
      sentences.push(`the TC ${direction} filter of ${name} ${what}`);
    }
    for (const route of routesOf(pod)) {
      if (!this.#hasRoute(netns, route)) sentences.push(`route local ${route.dst}/${route.prefix} dev lo is missing`);
    }
    return sentences;
  }

  /** True when it was attached to the netns, as far as pins tell. */
  present(cookie: bigint): boolean {
    return this.bpf.link(lookupPin(cookie)) !== undefined;
  }

  /** The steering first, so that nothing is turned to an address where nobody answers. Idempotent. */
  detachInterfaces(netns: number): void {
    for (const { index, loopback } of this.binding.links(netns)) {
      if (!loopback) this.bpf.tcDetach(netns, index);
    }
  }

  detachLookup(netns: number, cookie: bigint): void {
    this.bpf.tcDetach(netns, LO_INDEX);
    this.bpf.unpin(`pods/${cookie}`);
    for (const route of this.#routes(netns)) {
      try {
        this.binding.routeDelete(netns, route);
      } catch (error) {
        if (codeOf(error) !== "ESRCH") throw error;
      }
    }
  }

  /** Shadows that have a route in the netns: what an agent of another version left tells them. */
  shadows(netns: number, family: AddressFamily): string[] {
    return this.#routesOf(netns, family)
      .map(({ dst }) => dst)
      .filter(isShadow);
  }

  #routes(netns: number): RouteSpec[] {
    return ([4, 6] as const).flatMap((family) => this.#routesOf(netns, family));
  }

  #routesOf(netns: number, family: AddressFamily): RouteSpec[] {
    return this.#local(netns, family)
      .filter(({ type, dst, oif }) => type === "local" && oif === LO_INDEX && isOurs(dst, family))
      .map(({ dst, prefix }) => ({ family, table: LOCAL_TABLE, type: "local", dst, prefix, oif: LO_INDEX }));
  }

  #hasRoute(netns: number, wanted: RouteSpec): boolean {
    return this.#local(netns, wanted.family).some(
      ({ type, dst, prefix, oif }) =>
        type === "local" && oif === LO_INDEX && dst === wanted.dst && prefix === wanted.prefix,
    );
  }

  #local(netns: number, family: AddressFamily) {
    try {
      return this.binding.routes(netns, family, LOCAL_TABLE);
    } catch (error) {
      if (["EAFNOSUPPORT", "EOPNOTSUPP"].includes(codeOf(error))) return [];
      throw error;
    }
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

function routesOf(pod: BpfPod): RouteSpec[] {
  const local = (family: AddressFamily, dst: string, prefix: number, src?: string): RouteSpec => ({
    family,
    table: LOCAL_TABLE,
    type: "local",
    dst,
    prefix,
    oif: LO_INDEX,
    scope: "host",
    ...(src === undefined ? {} : { src }),
  });
  const spread = (family: AddressFamily) => SPREAD_RANGE[family].split("/");
  const all: RouteSpec[] = [];
  for (const [family, ip, shadow] of [
    [4, pod.ip4, pod.shadow4],
    [6, pod.ip6, pod.shadow6],
  ] as const) {
    if (ip === "" || shadow === "") continue;
    const [network = "", prefix = ""] = spread(family);
    all.push(local(family, shadow, family === 4 ? 32 : 128));
    // `src`: a captured connection keeps the pod's own address.
    all.push(local(family, network, Number(prefix), ip));
  }
  return all;
}

function isOurs(dst: string, family: AddressFamily): boolean {
  return dst === SPREAD_RANGE[family].split("/")[0] || isShadow(dst);
}
