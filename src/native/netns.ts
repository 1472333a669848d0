// SPDX-License-Identifier: Apache-2.0
import type { NetnsHandle, NetnsId } from "../core/ports/netns.ts";
import { OwnedFd } from "./fd.ts";
import { native } from "./load.ts";

/** A network namespace kept alive by an fd. Its identity is known without another system call. */
export class HeldNetns implements NetnsHandle {
  readonly id: NetnsId;
  readonly #owned: OwnedFd;

  private constructor(owned: OwnedFd, id: NetnsId) {
    this.#owned = owned;
    this.id = id;
  }

  /** Takes over `fd`, also when this throws. @throws NativeError EINVAL when it is no network namespace. */
  static adopt(fd: number, what: string): HeldNetns {
    const owned = OwnedFd.adopt(fd, what);
    try {
      return new HeldNetns(owned, netnsIdOf(fd));
    } catch (error) {
      owned.close();
      throw error;
    }
  }

  get fd(): number {
    return this.#owned.fd;
  }

  close(): void {
    this.#owned.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Identity of an open netns: device and inode of its nsfs file. */
export function netnsIdOf(fd: number): NetnsId {
  const { dev, ino } = native().netnsIdentify(fd);
  return `${dev}:${ino}`;
}

/** Opens a netns by path (`/proc/PID/ns/net`, `/run/netns/NAME`). @throws NativeError that names the path. */
export function openNetns(path: string): HeldNetns {
  return HeldNetns.adopt(native().netnsOpen(path), `network namespace ${path}`);
}

/** A new, empty netns with lo up; it is gone when the last fd and process leave it. */
export function createNetns(): HeldNetns {
  return HeldNetns.adopt(native().netnsCreate(), "new network namespace");
}
