// SPDX-License-Identifier: Apache-2.0
import type { Socket } from "node:net";

/**
 * The kernel's number of an open socket, for questions Node has no function for (SO_ORIGINAL_DST). Valid
 * only until control returns to the event loop. @throws Error when the socket is closed.
 */
export function fdOf(socket: Socket): number {
  // Node keeps the number on its internal handle only; it has been there since 0.10.
  const handle: unknown = Reflect.get(socket, "_handle");
  if (
    typeof handle === "object" &&
    handle !== null &&
    "fd" in handle &&
    typeof handle.fd === "number" &&
    handle.fd >= 0
  ) {
    return handle.fd;
  }
  throw new Error("the socket is closed");
}
