// SPDX-License-Identifier: Apache-2.0
import { expired } from "./failure.ts";
import type { KubeObject } from "./object.ts";
import type { Resource } from "./resources.ts";

export interface StoreEvent {
  readonly version: number;
  readonly type: "ADDED" | "MODIFIED" | "DELETED";
  readonly resource: Resource;
  readonly object: KubeObject;
  readonly previous: KubeObject | undefined;
}

/** Events kept for watches that begin in the past. */
const HISTORY = 10_000;
const SLACK = 1_000;

/** Objects and their history in memory, with one version counter for all, as etcd has. */
export class ObjectStore {
  readonly #objects = new Map<Resource, Map<string, KubeObject>>();
  readonly #listeners = new Set<(event: StoreEvent) => void>();
  #history: StoreEvent[] = [];
  #version = 1;
  #compacted = 0;

  get version(): number {
    return this.#version;
  }

  get(resource: Resource, namespace: string | undefined, name: string): KubeObject | undefined {
    return this.#objects.get(resource)?.get(keyOf(namespace, name));
  }

  /** In key order, as etcd lists. */
  list(resource: Resource, namespace?: string): KubeObject[] {
    const all = [...(this.#objects.get(resource)?.entries() ?? [])];
    return all
      .filter(([, object]) => namespace === undefined || object.metadata.namespace === namespace)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, object]) => object);
  }

  /** Stores `object` under a new version, which it returns inside it. */
  put(resource: Resource, object: KubeObject): KubeObject {
    const key = keyOf(object.metadata.namespace, object.metadata.name);
    const objects = this.#objects.get(resource) ?? new Map<string, KubeObject>();
    this.#objects.set(resource, objects);
    const previous = objects.get(key);
    const stored = this.#stamped(object);
    objects.set(key, stored);
    this.#record(previous === undefined ? "ADDED" : "MODIFIED", resource, stored, previous);
    return stored;
  }

  remove(resource: Resource, object: KubeObject): KubeObject {
    this.#objects.get(resource)?.delete(keyOf(object.metadata.namespace, object.metadata.name));
    const last = this.#stamped(object);
    this.#record("DELETED", resource, last, object);
    return last;
  }

  /** Events after `version`. @throws ApiFailure 410 when some of them are forgotten. */
  since(version: number): readonly StoreEvent[] {
    if (version < this.#compacted) {
      throw expired(`too old resource version: ${version} (${this.#compacted + 1})`);
    }
    return this.#history.filter((event) => event.version > version);
  }

  /** Forgets all history: watches and continued lists from before get 410. */
  compact(): void {
    // A version of its own, so that whoever is up to date now is too old too.
    this.#version += 1;
    this.#history = [];
    this.#compacted = this.#version;
  }

  /** True when a list or watch at `version` can't be continued any more. */
  forgotten(version: number): boolean {
    return version < this.#compacted;
  }

  /** Called after each change, in order. */
  listen(listener: (event: StoreEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  #stamped(object: KubeObject): KubeObject {
    this.#version += 1;
    return { ...object, metadata: { ...object.metadata, resourceVersion: String(this.#version) } };
  }

  #record(type: StoreEvent["type"], resource: Resource, object: KubeObject, previous: KubeObject | undefined): void {
    const event = { version: this.#version, type, resource, object, previous };
    this.#history.push(event);
    if (this.#history.length > HISTORY + SLACK) {
      const dropped = this.#history.splice(0, SLACK);
      this.#compacted = dropped.at(-1)?.version ?? this.#compacted;
    }
    for (const listener of [...this.#listeners]) listener(event);
  }
}

function keyOf(namespace: string | undefined, name: string): string {
  return `${namespace ?? ""}/${name}`;
}
