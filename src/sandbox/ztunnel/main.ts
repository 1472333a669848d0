// SPDX-License-Identifier: Apache-2.0
import { closeSync, openSync, writeSync } from "node:fs";
import { messageOf } from "../../core/errors.ts";
import { native } from "../../native/load.ts";
import type { StandInEvent } from "./journal.ts";
import { readSettings, type Settings } from "./settings.ts";
import { runStandIn } from "./stand-in.ts";

/**
 * The stand-in ztunnel as a process of its own, configured by ztunnel's environment alone. Resolves to its
 * exit status, after SIGTERM or SIGINT or when the agent sends what ztunnel dies of.
 */
export async function main(env: Readonly<Record<string, string | undefined>>): Promise<number> {
  let settings: Settings;
  try {
    settings = readSettings(env);
  } catch (error) {
    process.stderr.write(`sandbox-ztunnel: ${messageOf(error)}\n`);
    return 1;
  }
  const events = openEvents(settings.events);
  try {
    const standIn = await runStandIn({
      native: native(),
      settings,
      log: (line) => process.stdout.write(`${line}\n`),
      event: events.write,
    });
    const stop = () => void standIn.stop();
    process.once("SIGTERM", stop);
    process.once("SIGINT", stop);
    return await standIn.done;
  } catch (error) {
    process.stderr.write(`sandbox-ztunnel: ${messageOf(error)}\n`);
    return 1;
  } finally {
    events.close();
  }
}

/** One JSON document a line, to an inherited fd or a file. A reader that went away is no reason to stop. */
function openEvents(target: Settings["events"]): { write: (event: StandInEvent) => void; close: () => void } {
  if (target === undefined) return { write: () => {}, close: () => {} };
  const fd = typeof target === "number" ? target : openSync(target, "a", 0o600);
  return {
    write: (event) => {
      try {
        writeSync(fd, `${JSON.stringify(event)}\n`);
      } catch {
        // EPIPE or EAGAIN: the log has the same facts.
      }
    },
    close: () => {
      if (typeof target === "string") closeSync(fd);
    },
  };
}
