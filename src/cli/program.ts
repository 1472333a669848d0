// SPDX-License-Identifier: Apache-2.0
import { Command, CommanderError } from "commander";
import { messageOf } from "../core/errors.ts";
import { runAgent } from "./agent-command.ts";
import { EXIT, VERSION } from "./exit.ts";
import { sandboxCommand } from "./sandbox-command.ts";

/**
 * The one program. As `install-cni` it takes istio-cni's flags and environment and is the agent; all
 * other words are commands for people. Resolves with the exit status.
 */
export async function main(argv: readonly string[]): Promise<number> {
  const [first, ...rest] = argv;
  // Not commander's business: unknown flags of the stock chart must not stop the node's agent.
  if (first === "install-cni") return runAgent(rest, process.env);
  // Programs inside the sandbox, started by the sandbox itself.
  if (first === "sandbox-app") {
    const { runApp } = await import("../sandbox/app/main.ts");
    runApp(rest[0] ?? "app");
    return new Promise(() => undefined);
  }
  if (first === "sandbox-ztunnel") {
    const { main: runZtunnel } = await import("../sandbox/ztunnel/main.ts");
    return runZtunnel(process.env);
  }
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
