// SPDX-License-Identifier: Apache-2.0
import { effectiveSettings } from "../core/config/effective.ts";
import { parseConfig } from "../core/config/parse.ts";
import { messageOf } from "../core/errors.ts";
import { Log } from "../telemetry/log.ts";
import { openTargets } from "../telemetry/log-sink.ts";
import { AgentProcess } from "./agent-process.ts";
import { EXIT, VERSION } from "./exit.ts";

/**
 * Runs the node agent until SIGTERM or SIGINT; `argv` holds install-cni's flags. Resolves with the exit
 * status: 0 after a signal, 1 when the agent could not start or broke, 2 for a wrong configuration.
 */
export async function runAgent(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  let parsed: ReturnType<typeof parseConfig>;
  try {
    parsed = parseConfig(env, argv);
  } catch (error) {
    process.stderr.write(`install-cni: ${messageOf(error)}\n`);
    return EXIT.usage;
  }
  const { config, notes, warnings } = parsed;
  const log = new Log({ levels: config.logLevels, json: config.logAsJson }, openTargets(config.logTargets));
  const logger = log.scope("default");
  logger.info("ambient-cni starting", { version: VERSION, node: config.nodeName });
  for (const note of notes) logger.info(note);
  for (const warning of warnings) logger.warn(warning);

  const ended = new Promise<number>((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.once(signal, () => {
        logger.info(`${signal} received`);
        resolve(EXIT.ok);
      });
    }
    // Whatever we did not foresee: the kernel keeps every pod as it is, the next start reads it again.
    for (const event of ["uncaughtException", "unhandledRejection"] as const) {
      process.once(event, (error: unknown) => {
        logger.error("internal error", { error: error instanceof Error ? (error.stack ?? error.message) : error });
        resolve(EXIT.problem);
      });
    }
  });
  let agent: AgentProcess;
  try {
    agent = await AgentProcess.create(config, log, VERSION, effectiveSettings(env, argv));
    const failed = agent.start().then(
      () => new Promise<never>(() => undefined),
      (error: unknown) => {
        logger.error("the agent cannot start", { error: messageOf(error) });
        return EXIT.problem;
      },
    );
    const status = await Promise.race([ended, failed]);
    await agent.stop(status === EXIT.ok);
    logger.info("stopped", { status });
    return leave(log, status);
  } catch (error) {
    logger.error("the agent cannot start", { error: messageOf(error) });
    return leave(log, EXIT.problem);
  }
}

/** Ends the process: sockets of a half-done start must not keep it alive. */
function leave(log: Log, status: number): never {
  log.flush();
  process.exit(status);
}
