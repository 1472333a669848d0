// SPDX-License-Identifier: Apache-2.0
// `istio-owned`: a copy of the primary configuration with our entry, sorting before it; the primary is not
// touched. The copy stays when the primary is gone, e.g. until its CNI has started after a reboot, so that
// no pod starts without us in between.
import { join } from "node:path";
import { byBytes, type ConfDir, type ConfFile } from "./conf-dir.ts";
import { asList, merge } from "./conflist.ts";
import type { PluginEntry } from "./netconf.ts";
import { absent, encode, newMode, type Placement, type PlacementConfig } from "./placement.ts";
import { isOwnedCopy, onlyOurs, ownedEntry, primaryOf } from "./primary.ts";
import type { Step } from "./step.ts";

/** @throws AgentError as primaryOf */
export function owned(dir: ConfDir, config: PlacementConfig, entry: PluginEntry): Placement {
  const name = config.istioOwnedConfigName;
  const path = join(dir.path, name);
  const current = dir.files.find((file) => file.name === name);
  const primary = primaryOrCopy(dir, config, current);
  const list = primary.conf.kind === "list" ? primary.text : asList(primary.text);
  const bytes = encode(merge(list, ownedEntry(entry)));
  const steps: Step[] = [];
  if (current?.bytes.equals(bytes) !== true) {
    const mode = current?.mode ?? newMode(config);
    const was = current?.bytes ?? absent(dir, name);
    steps.push({ do: "write", path: current?.path ?? path, was, bytes, mode });
  }
  for (const copy of dir.files) {
    if (copy.name !== name && isOwnedCopy(copy.conf)) steps.push({ do: "remove", path: copy.path, was: copy.bytes });
  }
  return { path, steps, warnings: notFirst(dir, name) };
}

function primaryOrCopy(dir: ConfDir, config: PlacementConfig, current: ConfFile | undefined): ConfFile {
  const isCandidate = ({ name, conf }: ConfFile) =>
    name !== config.istioOwnedConfigName && !onlyOurs(conf) && !isOwnedCopy(conf);
  try {
    return primaryOf(dir, config.cniConfName, isCandidate);
  } catch (error) {
    if (current !== undefined && !onlyOurs(current.conf) && !dir.files.some(isCandidate)) return current;
    throw error;
  }
}

function notFirst(dir: ConfDir, name: string): string[] {
  const [first] = dir.files;
  if (first === undefined || byBytes(first.name, name) >= 0 || isOwnedCopy(first.conf)) return [];
  return [
    `${first.name} sorts before ${name}, so runtimes use it: set ISTIO_OWNED_CNI_CONFIG_FILENAME to a first name`,
  ];
}
