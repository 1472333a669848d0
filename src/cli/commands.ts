// SPDX-License-Identifier: Apache-2.0
import { Command, CommanderError } from "commander";
import { messageOf } from "../core/errors.ts";
import { EXIT, VERSION } from "./exit.ts";
import { sandboxCommand } from "./sandbox-command.ts";

/** The commands for people. Resolves with the exit status. */
export async function runCommand(argv: readonly string[]): Promise<number> {
  let status: number = EXIT.ok;
  const program = new Command("ambient-cni")
    .description("Node agent for Istio's ambient mesh, and its playground")
    .version(VERSION)
    .exitOverride();
  program
    .command("install-cni")
    .description("run the node agent, with istio-cni's flags and environment (docs/config.md)")
    .allowUnknownOption();
  program.addCommand(
    sandboxCommand((code) => {
      status = code;
    }),
  );
  try {
    await program.parseAsync(argv, { from: "user" });
    return status;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    process.stderr.write(`ambient-cni: ${messageOf(error)}\n`);
    return EXIT.problem;
  }
}
