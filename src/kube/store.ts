// SPDX-License-Identifier: Apache-2.0
import type { Stop } from "../core/disposable.ts";
import { messageOf } from "../core/errors.ts";
import type { Logger } from "../core/ports/telemetry.ts";

export interface Stored {
  readonly uid: string;
  readonly resourceVersion: string;
}

export interface Change<T> {
  readonly kind: "upsert" | "delete";
  readonly item: T;
  readonly previous: T | undefined;
}

/**
 * Cache of one collection. The key is the uid: an object that was deleted and made again under its
 * name is another object, and is told as a delete followed by an upsert.
 */
export class Store<T extends Stored> {
  readonly #byUid = new Map<string, T>();
  readonly #uidByName = new Map<string, string>();
  readonly #listeners = new Set<(change: Change<T>) => void>();
  readonly #nameOf: (item: T) => string;
  readonly #logger: Logger;

  constructor(nameOf: (item: T) => string, logger: Logger) {
    this.#nameOf = nameOf;
    this.#logger = logger;
  }

  get size(): number {
    return this.#byUid.size;
  }

  get(uid: string): T | undefined {
    return this.#byUid.get(uid);
  }

  named(name: string): T | undefined {
    const uid = this.#uidByName.get(name);
    return uid === undefined ? undefined : this.#byUid.get(uid);
  }

  values(): IterableIterator<T> {
    return this.#byUid.values();
  }

  /** The listener is told of changes from now on; what is cached already it reads by `values`. */
  listen(listener: (change: Change<T>) => void): Stop {
    // Wrapped, so that one function registered twice is two listeners.
    const entry = (change: Change<T>) => listener(change);
    this.#listeners.add(entry);
    return () => {
      this.#listeners.delete(entry);
    };
  }

  upsert(item: T): void {
    const previous = this.#byUid.get(item.uid);
    if (previous?.resourceVersion === item.resourceVersion) return;
    const name = this.#nameOf(item);
    const holder = this.named(name);
    // The delete of the one that had this name was missed, or is still to come: tell it first.
    if (holder !== undefined && holder.uid !== item.uid) this.remove(holder);
    this.#byUid.set(item.uid, item);
    this.#uidByName.set(name, item.uid);
    this.#tell({ kind: "upsert", item, previous });
  }

  /** `item` is the last state, as a DELETED event carries it. Unknown ones are ignored. */
  remove(item: T): void {
    const previous = this.#byUid.get(item.uid);
    if (previous === undefined) return;
    this.#byUid.delete(item.uid);
    const name = this.#nameOf(previous);
    if (this.#uidByName.get(name) === item.uid) this.#uidByName.delete(name);
    this.#tell({ kind: "delete", item, previous });
  }

  /** Takes over a whole list: first what is gone, then what is new or changed. */
  replace(items: readonly T[]): void {
    const listed = new Set(items.map((item) => item.uid));
    for (const item of [...this.#byUid.values()]) {
      if (!listed.has(item.uid)) this.remove(item);
    }
    for (const item of items) this.upsert(item);
  }

  #tell(change: Change<T>): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener(change);
      } catch (error) {
        this.#logger.error("a listener failed", {
          change: change.kind,
          object: this.#nameOf(change.item),
          error: messageOf(error),
        });
      }
    }
  }
}
