// SPDX-License-Identifier: Apache-2.0
// A dataplane under test, and pods as it is told about them.
import type { CaptureSpec } from "../../src/core/ports/dataplane.ts";
import type { Logger, Metrics } from "../../src/core/ports/telemetry.ts";
import { NodeDataplane } from "../../src/dataplane/dataplane.ts";
import type { NativeBinding } from "../../src/native/binding.ts";
import { NativeError } from "../../src/native/fault.ts";
import { native } from "../../src/native/load.ts";
import type { HeldNetns } from "../../src/native/netns.ts";
import { CAPTURE_SPEC } from "../fixtures/capture-spec.ts";
import { type LabEngine, NFTABLES } from "./lab-engines.ts";
import { inNetns, type NetnsLab } from "./netns-lab.ts";

export const quiet: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => quiet,
};

export const noMetrics: Metrics = { count: () => undefined, set: () => undefined, observe: () => undefined };

/** The addon on a node where a pod's sysctls can't be written: spoofed legs are then tracked. */
export const withoutSysctls: NativeBinding = {
  ...native(),
  sysctlSet: (_, key) => {
    throw new NativeError(`set ${key}: Read-only file system (EROFS)`, "EROFS", 30, "write");
  },
};

/**
 * A started dataplane with one engine, and behind it what a pod gets that it can't capture; `binding` may
 * be a native one with something denied.
 */
export async function startDataplane(
  binding: NativeBinding = native(),
  engine: LabEngine = NFTABLES,
): Promise<NodeDataplane> {
  const engines = engine.make(binding, quiet);
  const config = { engine: "auto" } as const;
  const dataplane = new NodeDataplane({ binding, logger: quiet, metrics: noMetrics, config, engines });
  await dataplane.start();
  return dataplane;
}

/** What upstream's defaults ask for the lab's pod, with IPv6 and DNS capture on. */
export function specOf(lab: NetnsLab, changes: Partial<CaptureSpec> = {}): CaptureSpec {
  return { ...CAPTURE_SPEC, ips: [lab.pod.ipv4, lab.pod.ipv6], ...changes };
}

/** Everything that a dataplane may touch in a netns, as text. */
export async function stateOf(netns: HeldNetns): Promise<string> {
  const sysctls =
    "sysctl -a 2>/dev/null | grep -E 'fwmark|tcp_migrate_req|ip_early_demux|route_localnet|accept_local|rp_filter|conntrack_tcp_(loose|timeout_(close|fin)_wait)'";
  // A legacy table that has been used stays in its netns for ever: only what is in it counts.
  const legacy =
    "for save in iptables-legacy-save ip6tables-legacy-save; do $save | grep -E '^-A|^:.* (-|DROP) '; done";
  // The kernel delivers to a new IPv6 address a moment after it is there (addrconf's own work queue).
  const delivered =
    'ip -6 -o address show scope global | while IFS=" /" read -r _ dev _ ip _; do for _ in $(seq 100); do ' +
    'ip -6 route show table local | grep -q "^local $ip dev $dev " && break; sleep 0.02; done; done';
  const all = await inNetns(
    netns,
    "sh",
    "-c",
    `${delivered}; ${legacy}; nft list ruleset; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; ${sysctls}`,
  );
  // The kernel adds a link-local address when it has looked for duplicates, a second after link up.
  return all.replaceAll(/^.*\bfe80:.*\n/gm, "");
}
