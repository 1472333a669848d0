// SPDX-License-Identifier: Apache-2.0
import { readdir, readlink, realpath } from "node:fs/promises";
import { extname, join } from "node:path";
import { AgentError, codeOf, messageOf } from "../src/core/errors.ts";
import { type ReadFile, readRegular } from "../src/sys/files.ts";
import { invalidConf } from "./go-json.ts";
import { type NetConf, parseList, parseSingle } from "./netconf.ts";
import { nodeFault } from "./node-fault.ts";

/** containerd refuses larger ones (go-cni MaxFileSize). */
export const CONF_MAX_BYTES = 2 << 20;
/** More than any node has; keeps one look into the directory bounded. */
const MAX_CONFS = 256;
const EXTENSIONS = [".conf", ".conflist", ".json"];
/** What is gone, leads nowhere, or is a socket. */
const NO_FILE = new Set(["ENOENT", "ENOTDIR", "ELOOP", "ENXIO"]);
/** Cilium (`cni.exclusive`) renames other programs' configurations so. */
export const SET_ASIDE = ".cilium_bak";

/** A valid configuration in the directory, as it is now. */
export interface ConfFile extends ReadFile {
  readonly name: string;
  /** Where it is, with symbolic links followed: writing must not replace the link. */
  readonly path: string;
  /** The bytes, one character for each. */
  readonly text: string;
  readonly conf: NetConf;
}

export interface PassedOver {
  readonly name: string;
  readonly reason: string;
  /** Leads where the node may have something that is not mounted here: a runtime may well use it. */
  readonly unseen: boolean;
  /** It could not be read: what it is, is not known. A runtime may well have read it. */
  readonly unread: Error | undefined;
}

/** What a runtime finds in its configuration directory. */
export interface ConfDir {
  readonly path: string;
  /** Valid ones in the order in which runtimes try them: of the file names' bytes. */
  readonly files: readonly ConfFile[];
  /** Candidates that are no valid configuration, in the same order. */
  readonly passedOver: readonly PassedOver[];
  /** Everything in the directory. */
  readonly names: ReadonlySet<string>;
}

/**
 * Reads a configuration directory as runtimes do: files ending in .conf, .conflist and .json. CRI-O takes
 * the first valid one; containerd the first, and none at all while that is broken.
 * @throws AgentError CNI_CONF_NOT_FOUND when there is no such directory; errors of the file system
 */
export async function readConfDir(path: string): Promise<ConfDir> {
  const names = await namesIn(path);
  const candidates = names.filter(isConfName).sort(byBytes);
  const files: ConfFile[] = [];
  const passedOver: PassedOver[] = [];
  for (const [index, name] of candidates.entries()) {
    try {
      if (index >= MAX_CONFS) throw new Error(`not read: there are ${MAX_CONFS} before it`);
      files.push(await readConf(path, name));
    } catch (error) {
      const target = codeOf(error) === "ENOENT" ? await readlink(join(path, name)).catch(() => undefined) : undefined;
      const unseen = target !== undefined;
      const reason = unseen ? `a link to ${target}, which is not here` : messageOf(error);
      const unread = isUnread(error) ? nodeFault(error, join(path, name)) : undefined;
      passedOver.push({ name, reason, unseen, unread });
    }
  }
  return { path, files, passedOver, names: new Set(names) };
}

/** Whether an error says nothing about the file: a disk that fails, no more descriptors, no permission. */
export function isUnread(error: unknown): boolean {
  return error instanceof Error && "errno" in error && !NO_FILE.has(codeOf(error));
}

/** Configurations that Cilium set aside, and why others of them can't be read. @throws as readConfDir */
export async function readSetAside(path: string): Promise<{ files: readonly ConfFile[]; unread: readonly Error[] }> {
  const files: ConfFile[] = [];
  const unread: Error[] = [];
  const names = (await namesIn(path)).filter((name) => name.endsWith(SET_ASIDE)).sort(byBytes);
  for (const name of names.slice(0, MAX_CONFS)) {
    try {
      files.push(await readConf(path, name));
    } catch (error) {
      if (isUnread(error)) unread.push(nodeFault(error, join(path, name)));
    }
  }
  return { files, unread };
}

/** Whether runtimes take a file of this name for a configuration. */
export function isConfName(name: string): boolean {
  return EXTENSIONS.includes(extension(name));
}

/** Go's filepath.Ext: a name may be nothing but its extension. */
function extension(name: string): string {
  return name.startsWith(".") && name.lastIndexOf(".") === 0 ? name : extname(name);
}

export function byBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

async function namesIn(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw nodeFault(error, path);
    throw new AgentError(
      "CNI_CONF_NOT_FOUND",
      `${path} does not exist`,
      "mount the node's CNI configuration directory there (cniConfDir)",
      { cause: error },
    );
  }
}

async function readConf(directory: string, name: string): Promise<ConfFile> {
  const path = await realpath(join(directory, name));
  const file = await readRegular(path, CONF_MAX_BYTES);
  const text = file.bytes.toString("latin1");
  const isList = extension(name.endsWith(SET_ASIDE) ? name.slice(0, -SET_ASIDE.length) : name) === ".conflist";
  const conf = isList ? parseList(text) : parseSingle(text);
  if (conf.plugins.length === 0 && !(await hasPluginFiles(directory, conf.name))) {
    throw invalidConf("it has no plugins");
  }
  return { ...file, name, path, text, conf };
}

/** libcni 1.3 adds the plugins that it finds in `<directory>/<name of the network>/*.conf`. */
async function hasPluginFiles(directory: string, network: string): Promise<boolean> {
  const names = await readdir(join(directory, Buffer.from(network, "latin1").toString())).catch((error: unknown) => {
    if (isUnread(error)) throw error;
    return [];
  });
  return names.some((name) => extension(name) === ".conf");
}
