// SPDX-License-Identifier: Apache-2.0
import { lstatSync, statSync, unlinkSync } from "node:fs";
import { dirname } from "node:path";
import { AgentError, codeOf, messageOf } from "../core/errors.ts";

/** sizeof(sun_path) is 108 with the closing NUL (unix(7)). */
const MAX_PATH_BYTES = 107;

/** Identity of a socket file, so that a successor's is never removed. */
export interface SocketFile {
  readonly dev: bigint;
  readonly ino: bigint;
}

/**
 * Makes room for a socket: checks the path and removes the socket a predecessor left.
 * @throws AgentError ZDS_SOCKET when the path is too long, its directory is missing, or something
 * that is no socket is in the way.
 */
export function prepareSocketPath(path: string): void {
  const bytes = Buffer.byteLength(path);
  if (bytes === 0 || path.includes("\0")) throw fault(`${JSON.stringify(path)} is no path for the ZDS socket`);
  if (bytes > MAX_PATH_BYTES) {
    throw fault(`the path of the ZDS socket takes ${bytes} bytes, the kernel allows ${MAX_PATH_BYTES}: ${path}`);
  }
  const directory = dirname(path);
  try {
    if (!statSync(directory).isDirectory())
      throw fault(`the directory of the ZDS socket is no directory: ${directory}`);
  } catch (error) {
    if (error instanceof AgentError) throw error;
    throw fault(`the directory of the ZDS socket can't be used: ${messageOf(error)}`, error);
  }
  try {
    if (!lstatSync(path).isSocket()) throw fault(`${path} exists and is no socket; it is left alone`);
    unlinkSync(path);
  } catch (error) {
    if (error instanceof AgentError) throw error;
    if (codeOf(error) !== "ENOENT") throw fault(`the old ZDS socket can't be removed: ${messageOf(error)}`, error);
  }
}

/** Identity of the socket at a path, undefined when there is none. */
export function identifySocket(path: string): SocketFile | undefined {
  const stat = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  return stat?.isSocket() ? { dev: stat.dev, ino: stat.ino } : undefined;
}

/** Removes our socket file; one that a successor has bound at the same path stays. */
export function removeSocket(path: string, own: SocketFile): void {
  const found = identifySocket(path);
  if (found === undefined || found.dev !== own.dev || found.ino !== own.ino) return;
  try {
    unlinkSync(path);
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw fault(`the ZDS socket can't be removed: ${messageOf(error)}`, error);
  }
}

function fault(message: string, cause?: unknown): AgentError {
  return new AgentError(
    "ZDS_SOCKET",
    message,
    "Mount the directory that the agent shares with ztunnel (hostPath /var/run/ztunnel), or set ZTUNNEL_UDS_ADDRESS.",
    cause === undefined ? undefined : { cause },
  );
}
