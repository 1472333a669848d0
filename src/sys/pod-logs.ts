// SPDX-License-Identifier: Apache-2.0
import { closeSync, constants, fstatSync, openSync, readdirSync, readSync } from "node:fs";
import { join } from "node:path";

export interface PodName {
  readonly namespace: string;
  readonly name: string;
}

/** kubelet's: `<namespace>_<name>_<uid>`, none of which has an underscore. */
const DIRECTORY = /^([a-z0-9-]{1,63})_([a-z0-9.-]{1,253})_([0-9a-f-]{32,36})$/;
const LOGS = "1/root/var/log/pods";

export interface LogTail {
  readonly pod: PodName;
  readonly container: string;
  /** `0.log`: of the container's first run, `1.log` of the one after it. */
  readonly file: string;
  readonly text: string;
}

/**
 * Names of pods by uid, as kubelet gives them to the directories of their logs on the node; also of pods
 * that have ended and are not collected yet. Empty where they can't be read: whoever asks must do without.
 */
export function podNames(procDir: string): ReadonlyMap<string, PodName> {
  const names = new Map<string, PodName>();
  for (const directory of directories(join(procDir, LOGS))) {
    const [, namespace, name, uid] = DIRECTORY.exec(directory) ?? [];
    if (namespace !== undefined && name !== undefined && uid !== undefined) names.set(uid, { namespace, name });
  }
  return names;
}

/**
 * The ends of kubelet's log files of pods that `wanted` says yes to: of each container the last two runs, at most
 * `maxBytes` of each. Without files where they can't be read.
 */
export function logTails(procDir: string, wanted: (pod: PodName) => boolean, maxBytes: number): readonly LogTail[] {
  const root = join(procDir, LOGS);
  return directories(root).flatMap((directory) => {
    const [, namespace = "", name = ""] = DIRECTORY.exec(directory) ?? [];
    if (name === "" || !wanted({ namespace, name })) return [];
    return directories(join(root, directory)).flatMap((container) =>
      directories(join(root, directory, container))
        .filter((file) => /^\d{1,6}\.log$/.test(file))
        .sort((a, b) => Number.parseInt(b, 10) - Number.parseInt(a, 10))
        .slice(0, 2)
        .flatMap((file) => {
          const text = tail(join(root, directory, container, file), maxBytes);
          return text === undefined ? [] : [{ pod: { namespace, name }, container, file, text }];
        }),
    );
  });
}

/** From the first whole line on. kubelet's files are links to the runtime's on some nodes. */
function tail(path: string, maxBytes: number): string | undefined {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch {
    return undefined;
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) return undefined;
    const from = Math.max(0, stat.size - maxBytes);
    const buffer = Buffer.alloc(Math.min(stat.size, maxBytes));
    const text = buffer.toString("utf8", 0, readSync(fd, buffer, 0, buffer.length, from));
    return from === 0 ? text : text.slice(text.indexOf("\n") + 1);
  } finally {
    closeSync(fd);
  }
}

function directories(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
