// SPDX-License-Identifier: Apache-2.0
import { join } from "node:path";
import type { Config } from "../src/core/config/config.ts";
import { PLUGIN_NAME } from "../src/core/constants.ts";
import { codeOf } from "../src/core/errors.ts";
import type { Logger } from "../src/core/ports/telemetry.ts";
import { readBounded, removeLeftovers } from "../src/sys/files.ts";
import { CONF_MAX_BYTES, type ConfDir, isConfName, isUnread, readConfDir, readSetAside } from "./conf-dir.ts";
import { nodeFault } from "./node-fault.ts";
import { originalName, originalsIn } from "./primary.ts";
import { type Removal, removal } from "./removal.ts";
import { take } from "./step.ts";

export type RestoreConfig = Pick<Config, "cniBinDir" | "cniNetDir" | "istioOwnedConfigName">;

/** Looks again this often: somebody may change a file at the same time, and after us nobody may come any more. */
const TRIES = 3;

/**
 * Gives back every configuration as it was before the plugin was chained, and removes those that are
 * only ours. The plugin itself stays: runtimes remember the chain of a running pod, and its DEL must
 * find it. Needs no agent and nothing but the directory; idempotent.
 * @throws AgentError of the first file that resists, when all have been tried
 */
export async function restore(config: RestoreConfig, logger: Logger): Promise<void> {
  const warned = new Set<string>();
  let errors: readonly unknown[] = [];
  let tidy = false;
  for (let tries = 1; tries <= TRIES; tries++) {
    errors = await tryOnce(config, logger, warned, tries === TRIES);
    tidy = await removeTemporaries(config);
    if (tidy && errors.length === 0) return;
  }
  if (!tidy) logger.warn("temporary files are left", { in: config.cniNetDir });
  if (errors.length > 0) throw errors[0];
}

/** What `restore` would do, from one look. @throws AgentError when the directory can't be read */
export async function planRestore(config: RestoreConfig): Promise<Removal> {
  const dir = await readConfDir(config.cniNetDir).catch((error: unknown) => {
    // Without configurations there is nothing of ours in them.
    if (codeOf(error) !== "CNI_CONF_NOT_FOUND") throw error;
    return undefined;
  });
  if (dir === undefined) return { changes: [], warnings: [], unread: [] };
  const setAside = await readSetAside(dir.path);
  const plan = removal(dir, setAside.files, await readOriginals(dir), config);
  return { ...plan, unread: [...setAside.unread, ...plan.unread] };
}

/** Only the `last` try does what it can without the files that it can't read. */
async function tryOnce(
  config: RestoreConfig,
  logger: Logger,
  warned: Set<string>,
  last: boolean,
): Promise<readonly unknown[]> {
  let plan: Removal;
  try {
    plan = await planRestore(config);
  } catch (error) {
    return [error];
  }
  const { changes, warnings, unread } = plan;
  if (unread.length > 0 && !last) return unread;
  const errors: unknown[] = [...unread];
  for (const change of changes) {
    try {
      for (const step of change) {
        await take(step);
        logger.info("CNI configuration given back", { path: step.path, how: step.do });
      }
    } catch (error) {
      errors.push(error);
    }
  }
  for (const warning of warnings) {
    if (!warned.has(warning)) logger.warn(warning);
    warned.add(warning);
  }
  return errors;
}

async function readOriginals(dir: ConfDir): Promise<Map<string, Buffer | Error>> {
  const originals = new Map<string, Buffer | Error>();
  for (const name of originalsIn(dir)) {
    const path = join(dir.path, originalName(name));
    try {
      originals.set(name, await readBounded(path, CONF_MAX_BYTES));
    } catch (error) {
      if (isUnread(error)) originals.set(name, nodeFault(error, path));
    }
  }
  return originals;
}

/**
 * Removes the temporary files of runs that were killed, ours or istio-cni's. Returns whether none is left, as far as
 * the directories can be read.
 */
export async function removeTemporaries({ cniBinDir, cniNetDir }: RestoreConfig): Promise<boolean> {
  const plugin = removeLeftovers(cniBinDir, (name) => name === PLUGIN_NAME);
  const configurations = removeLeftovers(cniNetDir, isConfName);
  const gone = await Promise.all([plugin.catch(isAbsence), configurations.catch(isAbsence)]);
  return gone.every((each) => each);
}

function isAbsence(error: unknown): boolean {
  return codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR";
}
