// SPDX-License-Identifier: Apache-2.0
import type { Clock } from "../core/clock.ts";

/** Calls `onIdle` once when a stream has brought nothing for `ms`. */
export class IdleTimer {
  readonly #clock: Clock;
  readonly #ms: number;
  readonly #onIdle: () => void;
  #lastRead: number;
  #cancel: () => void;

  constructor(clock: Clock, ms: number, onIdle: () => void) {
    this.#clock = clock;
    this.#ms = ms;
    this.#onIdle = onIdle;
    this.#lastRead = clock.now();
    this.#cancel = clock.after(ms, () => this.#check());
  }

  /** The same chunks; each counts as a sign of life. */
  async *watching(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const chunk of chunks) {
      this.#lastRead = this.#clock.now();
      yield chunk;
    }
  }

  stop(): void {
    this.#cancel();
  }

  /** One timer for many chunks: it looks back when it fires, and sleeps for the rest. */
  #check(): void {
    const quiet = this.#clock.now() - this.#lastRead;
    if (quiet >= this.#ms) this.#onIdle();
    else this.#cancel = this.#clock.after(this.#ms - quiet, () => this.#check());
  }
}
