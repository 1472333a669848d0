// SPDX-License-Identifier: Apache-2.0
// Addresses of ztunnel's ends: local to the pod's netns by routes alone, shown by no interface.
import { SPREAD_RANGE } from "../../core/constants.ts";
import { codeOf } from "../../core/errors.ts";
import type { AddressFamily, NativeBinding, Route, RouteSpec } from "../../native/binding.ts";
import type { BpfPod } from "../../native/bpf.ts";
import { isShadow } from "./shadow.ts";

const LO_INDEX = 1;
const LOCAL_TABLE = 255;

/** What a pod needs. Pure. */
export function localRoutes(pod: BpfPod): RouteSpec[] {
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

/** Sentences about routes that are not there. */
export function missingLocalRoutes(binding: NativeBinding, netns: number, pod: BpfPod): string[] {
  const there = ([4, 6] as const).flatMap((family) => ours(binding, netns, family));
  return localRoutes(pod)
    .filter(({ dst, prefix }) => !there.some((route) => route.dst === dst && route.prefix === prefix))
    .map(({ dst, prefix }) => `route local ${dst}/${prefix} dev lo is missing`);
}

/** Idempotent. */
export function removeLocalRoutes(binding: NativeBinding, netns: number): void {
  for (const family of [4, 6] as const) {
    for (const { dst, prefix } of ours(binding, netns, family)) {
      try {
        binding.routeDelete(netns, { family, table: LOCAL_TABLE, type: "local", dst, prefix, oif: LO_INDEX });
      } catch (error) {
        if (codeOf(error) !== "ESRCH") throw error;
      }
    }
  }
}

/** Shadows that have a route in the netns: what an agent of another version left tells them. */
export function routedShadows(binding: NativeBinding, netns: number, family: AddressFamily): string[] {
  return ours(binding, netns, family)
    .map(({ dst }) => dst)
    .filter(isShadow);
}

function ours(binding: NativeBinding, netns: number, family: AddressFamily): Route[] {
  try {
    return binding
      .routes(netns, family, LOCAL_TABLE)
      .filter(({ type, dst, oif }) => type === "local" && oif === LO_INDEX && isOurs(dst, family));
  } catch (error) {
    if (["EAFNOSUPPORT", "EOPNOTSUPP"].includes(codeOf(error))) return [];
    throw error;
  }
}

function isOurs(dst: string, family: AddressFamily): boolean {
  return dst === SPREAD_RANGE[family].split("/")[0] || isShadow(dst);
}
