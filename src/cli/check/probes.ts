// SPDX-License-Identifier: Apache-2.0
// Kubelet's probes: they must reach captured pods past ztunnel, and most CNIs have a say in that.
import { podTitle } from "../../core/report/pods.ts";
import { type Check, type CheckContext, type CheckResult, fail, ok, servedPods, skip } from "./check.ts";

export const PROBE_CHECKS: readonly Check[] = [
  {
    code: "AMB-412",
    category: "pods",
    title: "kubelet's probes reach captured pods directly",
    pre: false,
    fix: "see the checks of the cluster's network (AMB-207 to AMB-209), and policies that deny by default: they must let in the probe address (HOST_PROBE_SNAT_IP), or the node",
    about:
      "A probe that goes by way of ztunnel, or is lost, makes kubelet restart a healthy container. For one pod of each engine in use, the node itself connects to a listener that is opened in the pod for it, as kubelet would: the answer must come from there, not from ztunnel. With AMBIENT_CNI_PROBE_SOURCES=kubelet only kubelet's own connections are let through, and nobody else can prove that.",
    asks: "agent",
    run: async (context) => (await probeProof(context)) ?? ok("no pod is captured"),
  },
];

/** What the node's connections to one captured pod of each engine have shown; undefined while none is captured and served. */
export async function probeProof({ read, verify }: CheckContext): Promise<CheckResult | undefined> {
  const served = servedPods((await read("pods")).pods).filter(({ engine }) => engine !== null);
  // The first of each: the one that others have proved.
  const samples = served.filter((pod, index) => served.findIndex(({ engine }) => engine === pod.engine) === index);
  if (samples.length === 0) return undefined;
  const seen: string[] = [];
  const failed: string[] = [];
  const unseen: string[] = [];
  for (const sample of samples) {
    const { proofs, problem } = await verify(sample.uid);
    if (problem !== null) unseen.push(`${podTitle(sample)}: ${problem}`);
    for (const { row, family, result, evidence } of proofs) {
      if (row !== "probe") continue;
      const text = `${podTitle(sample)} (${sample.engine}) IPv${family}: ${evidence}`;
      (result === "proved" ? seen : result === "failed" ? failed : unseen).push(text);
    }
  }
  if (failed.length > 0) return fail(failed.join("; "));
  return unseen.length > 0 || seen.length === 0
    ? skip(unseen.join("; ") || "no proof of it was made")
    : ok(seen.join("; "));
}
