// SPDX-License-Identifier: Apache-2.0
import { Command, CommanderError } from "commander";
import { AgentError, messageOf } from "../core/errors.ts";
import type { Program } from "./command.ts";
import { addBugreport } from "./commands/bugreport.ts";
import { addCheck } from "./commands/check.ts";
import { addCompletion } from "./commands/completion.ts";
import { addConfig } from "./commands/config.ts";
import { addEngines } from "./commands/engines.ts";
import { addEnroll } from "./commands/enroll.ts";
import { addInspect } from "./commands/inspect.ts";
import { addLog } from "./commands/log.ts";
import { addMonitor } from "./commands/monitor.ts";
import { addPlan } from "./commands/plan.ts";
import { addPods } from "./commands/pods.ts";
import { addRemove } from "./commands/remove.ts";
import { addResetExisting } from "./commands/reset-existing.ts";
import { addSandbox } from "./commands/sandbox.ts";
import { addStatus } from "./commands/status.ts";
import { addTrace } from "./commands/trace.ts";
import { addUi } from "./commands/ui.ts";
import { addUnenroll } from "./commands/unenroll.ts";
import { addVerify } from "./commands/verify.ts";
import { addVersion } from "./commands/version.ts";
import type { CliEnv } from "./env.ts";
import { EXIT, exitOf, VERSION } from "./exit.ts";
import { addGlobals } from "./globals.ts";
import { describeExamples, formatHelp } from "./help.ts";
import { visible } from "./render/text.ts";

/** The tree of commands for people; `done` gets the exit status of the one that ran. */
export function buildProgram(env: CliEnv, done: (status: number) => void): Command {
  const root = new Command("ambient-cni")
    .description("Node agent for Istio's ambient mesh: what it does, and what the kernel says about it.")
    .version(VERSION)
    .exitOverride()
    .enablePositionalOptions()
    .configureHelp({ formatHelp })
    .configureOutput({
      writeOut: (text) => env.stdout.write(text),
      writeErr: (text) => env.stderr.write(text),
      outputError: (text, write) => write(`ambient-cni: ${text.replace(/^error: /, "")}`),
    });
  addGlobals(root);
  describeExamples(root, [
    "ambient-cni status                 # is everything as it should be?",
    "ambient-cni pods --failing         # which pods are not, and why",
    "ambient-cni sandbox demo           # a playground node on this machine",
  ]);
  const program: Program = { root, env, done };
  addStatus(program);
  addPods(program);
  addUi(program);
  addEngines(program);
  addConfig(program);
  addVersion(program);
  addInspect(program);
  addPlan(program);
  addCheck(program);
  addVerify(program);
  addMonitor(program);
  addTrace(program);
  addResetExisting(program);
  addEnroll(program);
  addUnenroll(program);
  addRemove(program);
  addLog(program);
  addBugreport(program);
  addCompletion(program);
  root
    .command("install-cni")
    .summary("run the node agent, with istio-cni's flags and environment (docs/config.md)")
    .description("Run the node agent, with istio-cni's flags and environment (docs/config.md).")
    .allowUnknownOption();
  addSandbox(program);
  return root;
}

/** Runs one command line. Resolves with the exit status. */
export async function runCommand(argv: readonly string[], env: CliEnv): Promise<number> {
  let status: number = EXIT.ok;
  const root = buildProgram(env, (code) => {
    status = code;
  });
  try {
    if (argv.length === 0) root.help({ error: true });
    await root.parseAsync(argv, { from: "user" });
    return status;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    const remedy = error instanceof AgentError && error.remedy !== undefined ? `\n  ${visible(error.remedy)}` : "";
    env.stderr.write(`ambient-cni: ${visible(messageOf(error))}${remedy}\n`);
    return exitOf(error);
  }
}
