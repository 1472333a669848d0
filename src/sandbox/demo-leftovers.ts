// SPDX-License-Identifier: Apache-2.0
import type { RunningPod } from "./kubelet.ts";
import type { SandboxNode } from "./node.ts";

const LOOK = "ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; nft list tables; tc qdisc show";
/** Policy rules and routes, tables of nf_tables, the qdisc of TC filters, local addresses of the eBPF engine. */
const OURS = /fwmark|table 100\b|^table |clsact|^local (255\.|fd16:9254:7127:[12]:)/;

/** What can still be seen of us in a pod's netns; empty when nothing. @throws ExecError when it can't be looked into */
export async function leftoversIn(node: SandboxNode, { name, attachment }: RunningPod): Promise<string> {
  const inside = ["nsenter", `--net=${attachment.netns}`, "--", "sh", "-ec", LOOK];
  const { stdout } = await node.run(inside, { timeoutMs: 5000 });
  const found = stdout.split("\n").filter((line) => OURS.test(line));
  return found.length === 0 ? "" : `${name}: ${found.join(", ")}`;
}
