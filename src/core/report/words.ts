// SPDX-License-Identifier: Apache-2.0

/** `1 pod`, `2 pods`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** A path of the node as people on the node write it: without where its file system is mounted here. */
export function nodePath(path: string, hostRoot: string): string {
  return hostRoot !== "/" && path.startsWith(`${hostRoot}/`) ? path.slice(hostRoot.length) : path;
}
