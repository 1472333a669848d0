// SPDX-License-Identifier: Apache-2.0
import type { Program } from "../command.ts";
import { describeExamples } from "../help.ts";

export interface DemoOptions {
  readonly json: boolean;
  readonly keep: boolean;
  readonly chart: string | undefined;
  readonly engine: string | undefined;
  readonly ztunnel: string | undefined;
}

export const CHARTS = ["newest", "1.24"];

/** `ambient-cni sandbox`: the playground. It is loaded for who asks for it. */
export function addSandbox({ root, done }: Program): void {
  const sandbox = root
    .command("sandbox")
    .summary("a playground cluster of one node on this machine (needs root)")
    .description("A playground cluster of one node on this machine (needs root).");
  const demo = sandbox
    .command("demo")
    .summary("tell the story: plain, labelled, captured, unlabelled; with a check at every step")
    .description("Tell the story: plain, labelled, captured, unlabelled; with a check at every step.")
    .option("--json", "print one JSON document with every check", false)
    .option("--keep", "leave the sandbox up at the end, to play on", false)
    .option("--chart <version>", `environment of this istio-cni chart: ${CHARTS.join(" or ")} (default: both, in turn)`)
    .option("--engine <name>", "capture with ebpf, nftables or iptables (default: the best that works)")
    .option("--ztunnel <path>", "run this ztunnel (a build with FAKE_CA) in place of the stand-in")
    .action(async (given: DemoOptions) => {
      const { runDemo } = await import("../sandbox-demo.ts");
      done(await runDemo(given));
    });
  const examples = [
    "ambient-cni sandbox demo                    # both charts, some 20 seconds",
    "ambient-cni sandbox demo --keep             # and leave it up, with a kubeconfig",
    "ambient-cni sandbox demo --engine nftables",
  ];
  describeExamples(sandbox, examples);
  describeExamples(demo, examples);
}
