// SPDX-License-Identifier: Apache-2.0
import { constants, fstatSync, openSync } from "node:fs";

/**
 * A descriptor of this process that is a pipe, opened anew for writing: it fails with EAGAIN where its reader does
 * not read, and whoever else has the pipe goes on as before. What is no pipe, or can't be opened, is returned as it is.
 */
export function ownPipe(fd: number): number {
  try {
    if (!fstatSync(fd).isFIFO()) return fd;
    return openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK);
  } catch {
    return fd;
  }
}
