// SPDX-License-Identifier: Apache-2.0
import { openNetns } from "../native/netns.ts";
import { run } from "../sys/exec.ts";
import type { NodeNetwork } from "./network.ts";

const DEVICE = "uplink";
const TIMEOUT_MS = 5000;

export interface UplinkEnd {
  /** Of the node's init, on the machine. */
  readonly pid: number;
  readonly network: NodeNetwork;
}

/** A cable between two nodes, with routes to each other's pods: addresses of pods cross it as they are. */
export async function connectNodes(one: UplinkEnd, other: UplinkEnd): Promise<void> {
  const inside = async (end: UplinkEnd, ...args: string[]) => {
    using netns = openNetns(`/proc/${end.pid}/ns/net`);
    await run(["ip", ...args], { netns: netns.fd, timeoutMs: TIMEOUT_MS });
  };
  await inside(one, "link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", String(other.pid));
  for (const [here, there] of [
    [one, other],
    [other, one],
  ] as const) {
    await inside(here, "address", "add", `${here.network.uplink4}/24`, "dev", DEVICE);
    await inside(here, "address", "add", `${here.network.uplink6}/64`, "dev", DEVICE, "nodad");
    await inside(here, "link", "set", DEVICE, "up");
    await inside(here, "route", "add", there.network.pods4, "via", there.network.uplink4);
    await inside(here, "-6", "route", "add", there.network.pods6, "via", there.network.uplink6);
  }
}
