// SPDX-License-Identifier: Apache-2.0
import { readdirSync } from "node:fs";
import { join } from "node:path";

export interface PodName {
  readonly namespace: string;
  readonly name: string;
}

/** kubelet's: `<namespace>_<name>_<uid>`, none of which has an underscore. */
const DIRECTORY = /^([a-z0-9-]{1,63})_([a-z0-9.-]{1,253})_([0-9a-f-]{32,36})$/;

/**
 * Names of pods by uid, as kubelet gives them to the directories of their logs on the node; also of pods
 * that have ended and are not collected yet. Empty where they can't be read: whoever asks must do without.
 */
export function podNames(procDir: string): ReadonlyMap<string, PodName> {
  const names = new Map<string, PodName>();
  for (const directory of directories(join(procDir, "1/root/var/log/pods"))) {
    const [, namespace, name, uid] = DIRECTORY.exec(directory) ?? [];
    if (namespace !== undefined && name !== undefined && uid !== undefined) names.set(uid, { namespace, name });
  }
  return names;
}

function directories(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
