// SPDX-License-Identifier: Apache-2.0
import { readdir, realpath, stat } from "node:fs/promises";
import { join } from "node:path";
import { PLUGIN_NAME } from "../src/core/constants.ts";
import { AgentError, codeOf, messageOf } from "../src/core/errors.ts";
import { readBounded } from "../src/sys/files.ts";
import { pluginTypes } from "./conflist.ts";

/** Larger than any configuration a runtime would be given. */
const CONF_MAX_BYTES = 1 << 20;

/** A configuration list on the node, as it is now. */
export interface CniConf {
  /** Where it is, with symbolic links followed: writing must not replace the link. */
  readonly path: string;
  readonly text: string;
  readonly mode: number;
  readonly types: readonly string[];
}

/**
 * The configuration list that the runtime uses and that we chain into: `name` when one is pinned,
 * otherwise the first valid one in lexical order, as runtimes choose. `skipped` hears of files that
 * were passed over.
 * @throws AgentError CNI_CONF_NOT_FOUND | CNI_CONF_INVALID | CNI_CONF_UNSUPPORTED naming the file
 */
export async function findPrimaryConf(
  directory: string,
  name: string,
  skipped: (path: string, reason: string) => void,
): Promise<CniConf> {
  if (name !== "") return readConf(join(directory, name));
  const problems: string[] = [];
  for (const candidate of await confNames(directory)) {
    const path = join(directory, candidate);
    try {
      const conf = await readConf(path);
      if (conf.types.some((type) => type !== PLUGIN_NAME)) return conf;
      problems.push(`${path} holds only ${PLUGIN_NAME}`);
    } catch (error) {
      if (codeOf(error) === "CNI_CONF_UNSUPPORTED") throw error;
      problems.push(messageOf(error));
      skipped(path, messageOf(error));
    }
  }
  throw new AgentError(
    "CNI_CONF_NOT_FOUND",
    `no CNI configuration to chain into in ${directory}${problems.map((text) => `; ${text}`).join("")}`,
    "install the cluster's primary CNI, or set CNI_CONF_NAME or cniConfDir to where its configuration is",
  );
}

/** All valid configuration lists of a directory, in lexical order. */
export async function readConfs(directory: string): Promise<CniConf[]> {
  const confs: CniConf[] = [];
  for (const name of await confNames(directory)) {
    if (!name.endsWith(".conflist")) continue;
    try {
      confs.push(await readConf(join(directory, name)));
    } catch (error) {
      // Broken, too large or gone meanwhile: no list of ours either way.
      if (!(error instanceof AgentError)) throw error;
    }
  }
  return confs;
}

async function confNames(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).filter((name) => name.endsWith(".conf") || name.endsWith(".conflist")).sort();
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
    throw new AgentError(
      "CNI_CONF_NOT_FOUND",
      `${directory} does not exist`,
      "mount the node's CNI configuration directory there (cniConfDir)",
      { cause: error },
    );
  }
}

async function readConf(path: string): Promise<CniConf> {
  let real: string;
  try {
    real = await realpath(path);
  } catch (error) {
    throw new AgentError("CNI_CONF_NOT_FOUND", messageOf(error), "correct CNI_CONF_NAME", { cause: error });
  }
  const text = decode(path, await readBounded(real, CONF_MAX_BYTES));
  if (!path.endsWith(".conflist")) {
    rejectSingle(path, text);
  }
  try {
    return { path: real, text, mode: (await stat(real)).mode & 0o7777, types: pluginTypes(text) };
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    throw new AgentError(error.code, `${path}: ${error.message}`, error.remedy, { cause: error });
  }
}

/** A `.conf` holds one plugin, not a list. @throws AgentError saying whether it is at least a valid one */
function rejectSingle(path: string, text: string): never {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new AgentError("CNI_CONF_INVALID", `${path} is not JSON: ${messageOf(error)}`, "correct or remove it");
  }
  if (typeof json !== "object" || json === null || !("type" in json) || typeof json.type !== "string") {
    throw new AgentError("CNI_CONF_INVALID", `${path} names no plugin type`, "correct or remove it");
  }
  throw new AgentError(
    "CNI_CONF_UNSUPPORTED",
    `${path} is a configuration of a single plugin (${json.type}), into which none can be chained`,
    "turn it into a .conflist with that plugin in `plugins`",
  );
}

function decode(path: string, bytes: Buffer): string {
  try {
    // A byte order mark stays, so that JSON.parse refuses it as runtimes do.
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new AgentError("CNI_CONF_INVALID", `${path} is not UTF-8`, "correct or remove it");
  }
}
