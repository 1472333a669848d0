// SPDX-License-Identifier: Apache-2.0
import type { RunningPod } from "../kubelet.ts";
import type { Sandbox } from "../sandbox.ts";

/**
 * What somebody may do to a captured pod behind the agent's back. A fixed list: a scenario comes from whoever
 * reports a bug, and must not be able to run programs of its own.
 */
export const SABOTAGES: Readonly<Record<string, readonly string[]>> = {
  "flush-nftables": ["nft", "flush", "ruleset"],
  "delete-nftables-table": ["nft", "delete", "table", "inet", "ambient-cni"],
  "flush-iptables-nat": ["iptables", "-t", "nat", "-F"],
  "delete-policy-rule": ["ip", "rule", "del", "pref", "32764"],
  "flush-route-table": ["ip", "route", "flush", "table", "100"],
  "delete-tc-inbound": ["tc", "filter", "del", "dev", "eth0", "ingress"],
  "delete-tc-outbound": ["tc", "filter", "del", "dev", "eth0", "egress"],
  "reset-sysctl": ["sysctl", "-qw", "net.ipv4.tcp_fwmark_accept=0"],
};

/** @throws ExecError with what the program said, where there was nothing to take away */
export async function sabotage(sandbox: Sandbox, pod: RunningPod, how: string): Promise<string> {
  const command = SABOTAGES[how] ?? [];
  await sandbox.node.run(["nsenter", `--net=${pod.attachment.netns}`, "--", ...command], { timeoutMs: 5000 });
  return command.join(" ");
}
