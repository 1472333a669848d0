// SPDX-License-Identifier: Apache-2.0
import { createNetns, type HeldNetns } from "../../native/netns.ts";

/** Pods with annotations of their own may make many bodies; the oldest are read again when needed. */
const MAX_REFERENCES = 256;

/**
 * What this kernel shows after it has read a text, each distinct text once and in a scratch netns, so
 * that a pod's rules can be told right from wrong by a dump. Pods with equal answers share a text: on
 * most nodes there are one or two.
 */
export class References<Reference> {
  readonly #known = new Map<string, Promise<Reference>>();
  readonly #settled = new Map<string, Reference>();
  #last: Promise<unknown> = Promise.resolve();
  #scratch: HeldNetns | undefined;

  /** Rejects with what `read` throws, and asks it again the next time. */
  of(key: string, read: (scratch: HeldNetns) => Promise<Reference>): Promise<Reference> {
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    // One after the other: they share the scratch netns and the names in it.
    const reading = this.#last.then(() => {
      this.#scratch ??= createNetns();
      return read(this.#scratch);
    });
    this.#last = reading.catch(() => undefined);
    this.#known.set(key, reading);
    reading.then(
      (reference) => this.#settled.set(key, reference),
      () => this.#known.delete(key),
    );
    this.#trim();
    return reading;
  }

  /** The reference if it has been read already. */
  known(key: string): Reference | undefined {
    return this.#settled.get(key);
  }

  close(): void {
    this.#scratch?.close();
    this.#scratch = undefined;
  }

  #trim(): void {
    for (const key of this.#known.keys()) {
      if (this.#known.size <= MAX_REFERENCES) return;
      this.#known.delete(key);
      this.#settled.delete(key);
    }
  }
}
