// SPDX-License-Identifier: Apache-2.0
import { Option } from "commander";
import { ENGINE_NAMES } from "../../core/ports/dataplane.ts";
import type { Program } from "../command.ts";
import { describeExamples } from "../help.ts";

export interface DemoOptions {
  readonly json: boolean;
  readonly keep: boolean;
  readonly chart: string | undefined;
  readonly engine: string | undefined;
  readonly ztunnel: string | undefined;
}

export interface ScenarioOptions extends DemoOptions {
  readonly dryRun: boolean;
}

export const CHARTS = ["newest", "1.24"];

/** `ambient-cni sandbox`: the playground. It is loaded for who asks for it. */
export function addSandbox({ root, done }: Program): void {
  const sandbox = root
    .command("sandbox")
    .summary("a playground cluster on this machine (needs root)")
    .description("A playground cluster on this machine (needs root).");
  const demo = sandbox
    .command("demo")
    .summary("tell the story: plain, labelled, captured, unlabelled; with a check at every step")
    .description("Tell the story: plain, labelled, captured, unlabelled; with a check at every step.")
    .option("--json", "print one JSON document with every check", false)
    .option("--keep", "leave the sandbox up at the end, to play on", false)
    .addOption(new Option("--chart <version>", "of istio-cni, for the environment; else both").choices(CHARTS))
    .addOption(new Option("--engine <name>", "to capture with; else the best").choices(ENGINE_NAMES))
    .option("--ztunnel <path>", "run this ztunnel in place of the stand-in")
    .action(async (given: DemoOptions) => {
      const { runDemo } = await import("../sandbox-demo.ts");
      done(await runDemo(given));
    });
  const run = sandbox
    .command("run <files...>")
    .summary("play scenarios from YAML files (docs/SCENARIOS.md), each step a check")
    .description("Play scenarios from YAML files (docs/SCENARIOS.md), each step a check.")
    .option("--dry-run", "only read the files, and say what is wrong with them", false)
    .option("--json", "print one JSON document with every step", false)
    .option("--keep", "leave the sandbox up at the end, to play on", false)
    .addOption(new Option("--chart <version>", "of istio-cni, in place of the file's").choices(CHARTS))
    .addOption(new Option("--engine <name>", "in place of the file's").choices(ENGINE_NAMES))
    .option("--ztunnel <path>", "run this ztunnel in place of the stand-in")
    .action(async (files: readonly string[], given: ScenarioOptions) => {
      const { runScenarios } = await import("../sandbox-run.ts");
      done(await runScenarios(files, given));
    });
  describeExamples(sandbox, [
    "ambient-cni sandbox demo                    # both charts, some 20 seconds",
    "ambient-cni sandbox demo --keep             # and leave it up, with a kubeconfig",
    "ambient-cni sandbox run scenarios/*.yaml    # each in a sandbox of its own",
  ]);
  describeExamples(demo, [
    "ambient-cni sandbox demo                    # both charts, some 20 seconds",
    "ambient-cni sandbox demo --keep             # and leave it up, with a kubeconfig",
    "ambient-cni sandbox demo --engine nftables",
  ]);
  describeExamples(run, [
    "ambient-cni sandbox run scenarios/two-nodes.yaml",
    "ambient-cni sandbox run bug.yaml --keep              # and look around",
    "ambient-cni sandbox run bug.yaml --engine iptables --json",
  ]);
}
