// SPDX-License-Identifier: Apache-2.0

/** One line of /proc/PID/mountinfo (proc_pid_mountinfo(5)). */
export interface Mount {
  /** major:minor of the file system: equal for all mounts of it, in whatever namespace. */
  readonly device: string;
  /**
   * The directory of the file system that is mounted. Of cgroup2 as the *reader's* cgroup namespace sees
   * it: the root of the hierarchy is `/../..` for a reader whose own namespace begins two levels below.
   */
  readonly root: string;
  /** Where, as seen from the root directory of the process. */
  readonly point: string;
  readonly type: string;
}

/** Parses a mountinfo file; lines that are none are skipped. */
export function parseMountinfo(text: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of text.split("\n")) {
    // Optional fields lie between the mount's options and the lone dash.
    const [before = "", after = ""] = line.split(" - ");
    const [, , device, root, point] = before.split(" ");
    const [type] = after.split(" ");
    if (device === undefined || root === undefined || point === undefined || type === undefined || type === "")
      continue;
    mounts.push({ device, root: unescaped(root), point: unescaped(point), type });
  }
  return mounts;
}

/** The kernel writes space, tab, newline and backslash as three octal digits. */
function unescaped(path: string): string {
  return path.replace(/\\([0-7]{3})/g, (_match, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}
