// SPDX-License-Identifier: Apache-2.0
// Our entry as the last plugin of the primary configuration itself.
import { join } from "node:path";
import { AgentError } from "../src/core/errors.ts";
import { byBytes, type ConfDir, type ConfFile } from "./conf-dir.ts";
import { asList, merge } from "./conflist.ts";
import type { PluginEntry } from "./netconf.ts";
import { encode, type Placement, type PlacementConfig } from "./placement.ts";
import { convertedEntry, convertedFrom, hasOurs, isCopy, onlyOurs, originalName, primaryOf } from "./primary.ts";
import type { Step } from "./step.ts";

/** @throws AgentError as primaryOf */
export function chained(dir: ConfDir, config: PlacementConfig, entry: PluginEntry): Placement {
  // Left from a time with `istio-owned`, when the primary was copied instead of edited.
  const { cniConfName, istioOwnedConfigName } = config;
  const copies = dir.files.filter((file) => file.name !== cniConfName && isCopy(dir, file, istioOwnedConfigName));
  const found = primaryOf(dir, cniConfName, (file) => !onlyOurs(file.conf) && !copies.includes(file));
  const primary = sourceOf(dir, found) ?? found;
  const { path, steps } = primary.conf.kind === "list" ? edit(primary, entry) : convert(dir, primary, entry);
  const obsolete = copies.filter((copy) => copy !== primary);
  return {
    path,
    // Only when the primary has our entry: then what the runtime uses has it at every moment.
    steps: [...steps, ...obsolete.map((copy): Step => ({ do: "remove", path: copy.path, was: copy.bytes }))],
    warnings: preempted(dir, config, primary),
  };
}

/**
 * What a list was made from, while that is still there (we were killed in between) or there again (its CNI
 * wrote it): then the list has to follow it. A `.json` sorts after its list and would never be seen otherwise.
 */
function sourceOf(dir: ConfDir, list: ConfFile): ConfFile | undefined {
  const from = convertedFrom(list.conf);
  return dir.files.find(({ name, conf }) => name === from && conf.kind === "single" && conf.unsupported === undefined);
}

function edit(primary: ConfFile, entry: PluginEntry): { path: string; steps: Step[] } {
  const { path, text, bytes, mode, owner } = primary;
  const merged = merge(text, convertedEntry(entry, convertedFrom(primary.conf)));
  return {
    path,
    steps: merged === text ? [] : [{ do: "write", path, was: bytes, bytes: encode(merged), mode, owner }],
  };
}

/**
 * A configuration of one plugin becomes a list beside it, and then steps aside under a name that no
 * runtime reads, from where removal brings it back as it was. `x.conf` sorts before `x.conflist` and
 * `x.json` after it, so the first or the second step decides for runtimes, and between them the other
 * file says what it said before.
 */
function convert(dir: ConfDir, primary: ConfFile, entry: PluginEntry): { path: string; steps: Step[] } {
  const list = encode(merge(asList(primary.text), convertedEntry(entry, primary.name)));
  const { name, was } = listFor(dir, primary);
  const path = join(dir.path, name);
  const steps: Step[] = [];
  if (was?.equals(list) !== true) {
    steps.push({ do: "write", path, was, bytes: list, mode: primary.mode, owner: primary.owner });
  }
  // The directory's entry, not what a link points to.
  steps.push({
    do: "rename",
    path: join(dir.path, primary.name),
    was: primary.bytes,
    to: join(dir.path, originalName(primary.name)),
    replaces: true,
    later: true,
  });
  return { path, steps };
}

/** Where the list goes: never over somebody else's. @throws AgentError CNI_CONF_UNSUPPORTED; of one that can't be read */
function listFor(dir: ConfDir, primary: ConfFile): { name: string; was: Buffer | undefined } {
  const stem = primary.name.slice(0, primary.name.lastIndexOf("."));
  for (const name of [`${stem}.conflist`, `${primary.name}.conflist`]) {
    if (!dir.names.has(name)) return { name, was: undefined };
    const file = dir.files.find((each) => each.name === name);
    if (file !== undefined && isConversion(dir, file, primary)) return { name, was: file.bytes };
    const unread = dir.passedOver.find((each) => each.name === name)?.unread;
    if (unread !== undefined) throw unread;
  }
  throw new AgentError(
    "CNI_CONF_UNSUPPORTED",
    `${join(dir.path, primary.name)} must become a list, but ${stem}.conflist and ${primary.name}.conflist are taken`,
    "remove those that no program uses",
  );
}

/** A list made from this very file before, by us or by istio-cni, which has written it again since. */
function isConversion(dir: ConfDir, list: ConfFile, primary: ConfFile): boolean {
  if (!hasOurs(list.conf) || list.path !== join(dir.path, list.name)) return false;
  if (convertedFrom(list.conf) === primary.name || dir.names.has(originalName(primary.name))) return true;
  return list.conf.types.length === 2 && list.conf.types[0] === primary.conf.types[0];
}

function preempted(dir: ConfDir, config: PlacementConfig, primary: ConfFile): string[] {
  const warnings: string[] = [];
  const [first] = dir.files;
  if (config.cniConfName !== "" && first !== undefined && byBytes(first.name, primary.name) < 0) {
    warnings.push(`${first.name} sorts before ${primary.name}, which CNI_CONF_NAME names: runtimes use the first`);
  }
  for (const { name, reason } of dir.passedOver) {
    if (byBytes(name, primary.name) > 0) continue;
    warnings.push(`${name} is passed over, and containerd uses no configuration while it is there: ${reason}`);
  }
  return warnings;
}
