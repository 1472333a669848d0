// SPDX-License-Identifier: Apache-2.0
import { isDeepStrictEqual } from "node:util";
import { PLUGIN_NAME } from "../src/core/constants.ts";
import { AgentError } from "../src/core/errors.ts";
import { byBytes, type ConfDir, type ConfFile } from "./conf-dir.ts";
import type { NetConf, PluginEntry } from "./netconf.ts";

/** Key of our entry in a configuration that is a copy of the primary one (`istio-owned`). */
const OWNED_KEY = "istio_owned_cni_config";
/** Key of our entry in a list that was made from a configuration of one plugin: that file's name. */
const CONVERTED_KEY = "converted_from";
/** What a converted configuration's original is kept as, beside it: no runtime reads the extension. */
const ORIGINAL = ".ambient-cni-original";

export const originalName = (name: string): string => `${name}${ORIGINAL}`;

/** Names of the files whose originals are kept in the directory. */
export const originalsIn = (dir: ConfDir): string[] =>
  [...dir.names].filter((name) => name.endsWith(ORIGINAL)).map((name) => name.slice(0, -ORIGINAL.length));

export const hasOurs = (conf: NetConf): boolean => conf.types.includes(PLUGIN_NAME);

/** Nothing but our plugin: no network by itself. */
export const onlyOurs = (conf: NetConf): boolean => conf.types.every((type) => type === PLUGIN_NAME);

export const ownedEntry = (entry: PluginEntry): PluginEntry => ({ ...entry, [OWNED_KEY]: true });

export const convertedEntry = (entry: PluginEntry, from: string | undefined): PluginEntry =>
  from === undefined ? entry : { ...entry, [CONVERTED_KEY]: from };

/** Name of the file that we made this list from; undefined when we did not. */
export function convertedFrom(conf: NetConf): string | undefined {
  const from = conf.plugins.find((plugin) => plugin.type === PLUGIN_NAME)?.[CONVERTED_KEY];
  return typeof from === "string" ? from : undefined;
}

/** A copy that we wrote in some run, under whatever name was configured then. */
export function isOwnedCopy(conf: NetConf): boolean {
  return conf.plugins.some((plugin) => plugin.type === PLUGIN_NAME && plugin[OWNED_KEY] === true);
}

/**
 * Also one that istio-cni wrote, which says nothing about itself: it has the name that is configured, and
 * the plugins of another configuration.
 */
export function isCopy(dir: ConfDir, { name, conf }: ConfFile, ownedName: string): boolean {
  if (isOwnedCopy(conf)) return true;
  if (name !== ownedName || !hasOurs(conf)) return false;
  return dir.files.some((each) => each.name !== name && isDeepStrictEqual(foreign(each.conf), foreign(conf)));
}

const foreign = (conf: NetConf): string[] => conf.types.filter((type) => type !== PLUGIN_NAME);

/**
 * The configuration into which pods' networking is written by the cluster's CNI and which we follow: the
 * one named `pinned`, otherwise the first. A pinned name stands for its other forms too: a `.conf` that
 * became a `.conflist`, as istio-cni has it.
 * @throws AgentError CNI_CONF_NOT_FOUND | CNI_CONF_INVALID | CNI_CONF_UNSUPPORTED naming the file; of one before it
 * that can't be read
 */
export function primaryOf(dir: ConfDir, pinned: string, isCandidate: (file: ConfFile) => boolean): ConfFile {
  const file = pinned === "" ? dir.files.find(isCandidate) : pinnedFile(dir, pinned);
  const unread = pinned === "" ? unreadBefore(dir, file) : undefined;
  if (unread !== undefined) throw unread;
  if (file === undefined) throw pinned === "" ? noneFound(dir) : pinnedMissing(dir, pinned);
  const { unsupported } = file.conf;
  if (unsupported === undefined) return file;
  throw new AgentError(
    "CNI_CONF_UNSUPPORTED",
    `${dir.path}/${file.name}: ${unsupported}`,
    "correct it, or set CNI_CONF_NAME to the configuration to chain into",
  );
}

/** The configuration by which pods start: the pinned one, whoever has to use it, otherwise the first. */
export function inUse(dir: ConfDir, pinned: string): ConfFile | undefined {
  return pinned === "" ? dir.files.find(({ conf }) => !onlyOurs(conf)) : pinnedFile(dir, pinned);
}

/** Why it is not known that no other file comes before this one. */
export function unreadBefore(dir: ConfDir, file: ConfFile | undefined): Error | undefined {
  return dir.passedOver.find((each) => each.unread && (file === undefined || byBytes(each.name, file.name) < 0))
    ?.unread;
}

function pinnedFile(dir: ConfDir, pinned: string): ConfFile | undefined {
  const name = pinnedForms(pinned).find((form) => dir.names.has(form));
  return dir.files.find((file) => file.name === name);
}

function pinnedForms(pinned: string): string[] {
  const stem = pinned.slice(0, pinned.lastIndexOf("."));
  return [pinned, `${pinned}.conflist`, `${stem}.conflist`, `${stem}.conf`];
}

function pinnedMissing(dir: ConfDir, pinned: string): Error {
  const names = pinnedForms(pinned);
  const broken = dir.passedOver.find(({ name }) => names.includes(name));
  if (broken?.unread !== undefined) return broken.unread;
  if (broken !== undefined) {
    return new AgentError("CNI_CONF_INVALID", `${dir.path}/${broken.name}: ${broken.reason}`, "correct the file");
  }
  return new AgentError(
    "CNI_CONF_NOT_FOUND",
    `${dir.path}/${pinned} does not exist`,
    "correct CNI_CONF_NAME, or install the cluster's primary CNI",
  );
}

function noneFound(dir: ConfDir): AgentError {
  const problems = [
    ...dir.passedOver.map(({ name, reason }) => `; ${dir.path}/${name}: ${reason}`),
    ...dir.files.filter(({ conf }) => onlyOurs(conf)).map(({ path }) => `; ${path} holds only ${PLUGIN_NAME}`),
  ];
  return new AgentError(
    "CNI_CONF_NOT_FOUND",
    `no CNI configuration to chain into in ${dir.path}${problems.join("")}`,
    "install the cluster's primary CNI, or set CNI_CONF_NAME or cniConfDir to where its configuration is",
  );
}
