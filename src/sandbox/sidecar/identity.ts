// SPDX-License-Identifier: Apache-2.0

/** Becomes the user and group of a pod's proxy. A container runtime has seen to that, and took the right to it away. */
export function becomeUser({ uid, gid }: { readonly uid?: number | undefined; readonly gid: number }): void {
  if (process.getgid?.() === gid && (uid === undefined || process.getuid?.() === uid)) return;
  process.setgroups?.([]);
  process.setgid?.(gid);
  if (uid !== undefined) process.setuid?.(uid);
}
