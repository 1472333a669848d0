// SPDX-License-Identifier: Apache-2.0
import { native } from "./load.ts";

/** An open fd that nobody adopted away or closed, for the leak check of the tests. */
export interface OpenFd {
  readonly fd: number;
  readonly what: string;
  /** Where it was adopted; undefined unless AMBIENT_CNI_TRACE_FDS=1. */
  readonly stack: string | undefined;
}

const open = new Map<OwnedFd, OpenFd>();

/** Owns one file descriptor. Exactly one owner closes it; use after close throws. */
export class OwnedFd implements Disposable {
  readonly #what: string;
  #fd: number;

  private constructor(fd: number, what: string) {
    this.#fd = fd;
    this.#what = what;
  }

  /** Takes over an fd that the addon returned. `what` names it in errors and leak reports. */
  static adopt(fd: number, what: string): OwnedFd {
    const owned = new OwnedFd(fd, what);
    const stack = process.env.AMBIENT_CNI_TRACE_FDS === "1" ? new Error(`fd ${fd} (${what}) adopted`).stack : undefined;
    open.set(owned, { fd, what, stack });
    return owned;
  }

  /** Every fd that is owned at this moment. */
  static open(): readonly OpenFd[] {
    return [...open.values()];
  }

  get closed(): boolean {
    return this.#fd < 0;
  }

  /** @throws Error after close or release. */
  get fd(): number {
    if (this.#fd < 0) throw new Error(`${this.#what} is closed`);
    return this.#fd;
  }

  /** Hands the number to another owner (`net.Socket({fd})`) and forgets it. */
  release(): number {
    const fd = this.fd;
    this.#fd = -1;
    open.delete(this);
    return fd;
  }

  /** Idempotent. */
  close(): void {
    if (this.#fd < 0) return;
    native().close(this.release());
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
