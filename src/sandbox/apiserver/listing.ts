// SPDX-License-Identifier: Apache-2.0
import { randomUUID } from "node:crypto";
import { ApiFailure, expired } from "./failure.ts";
import type { KubeObject } from "./object.ts";
import type { ObjectStore } from "./object-store.ts";
import type { Resource } from "./resources.ts";
import type { Selection } from "./selection.ts";

export interface ListRequest {
  readonly resource: Resource;
  readonly namespace: string | undefined;
  readonly select: Selection;
  readonly limit: string | undefined;
  readonly continue: string | undefined;
  readonly resourceVersion: string | undefined;
}

export interface ListPage {
  readonly items: readonly KubeObject[];
  readonly resourceVersion: string;
  readonly continue: string | undefined;
  readonly remaining: number;
}

interface Rest {
  readonly items: readonly KubeObject[];
  readonly version: number;
}

const MAX_UNFINISHED = 64;

/** Lists, page by page from one snapshot: stored objects never change, so a snapshot is a list of them. */
export class Lister {
  readonly #store: ObjectStore;
  readonly #unfinished = new Map<string, Rest>();

  constructor(store: ObjectStore) {
    this.#store = store;
  }

  /** @throws ApiFailure 400 for parameters that don't fit, 410 when the snapshot is forgotten, 504 for a future version. */
  list(request: ListRequest): ListPage {
    const { limit = "0", resourceVersion = "" } = request;
    if (!/^\d{1,9}$/.test(limit)) throw new ApiFailure(400, `limit: invalid value: ${JSON.stringify(limit)}`);
    if (!/^\d*$/.test(resourceVersion)) {
      throw new ApiFailure(400, `resourceVersion: invalid value: ${JSON.stringify(resourceVersion)}`);
    }
    if (Number(resourceVersion) > this.#store.version) throw tooLarge(resourceVersion, this.#store.version);
    const rest =
      request.continue === undefined ? this.#begin(request) : this.#resume(request.continue, resourceVersion);
    const size = limit === "0" ? rest.items.length : Number(limit);
    const items = rest.items.slice(0, size);
    const left = { items: rest.items.slice(size), version: rest.version };
    return {
      items,
      resourceVersion: String(rest.version),
      continue: left.items.length === 0 ? undefined : this.#keep(left),
      remaining: left.items.length,
    };
  }

  #begin(request: ListRequest): Rest {
    return {
      items: this.#store.list(request.resource, request.namespace).filter(request.select),
      version: this.#store.version,
    };
  }

  #resume(token: string, resourceVersion: string): Rest {
    if (resourceVersion !== "") {
      throw new ApiFailure(400, "specifying resource version is not allowed when using continue");
    }
    const rest = this.#unfinished.get(token);
    if (rest === undefined || this.#store.forgotten(rest.version)) {
      throw expired("The provided continue parameter is too old to display a consistent list result.");
    }
    return rest;
  }

  #keep(rest: Rest): string {
    const token = randomUUID();
    this.#unfinished.set(token, rest);
    const oldest = this.#unfinished.keys().next();
    if (this.#unfinished.size > MAX_UNFINISHED && oldest.done !== true) this.#unfinished.delete(oldest.value);
    return token;
  }
}

export function tooLarge(asked: string, current: number): ApiFailure {
  const cause = { reason: "ResourceVersionTooLarge", message: "Too large resource version" };
  return new ApiFailure(504, `Too large resource version: ${asked}, current: ${current}`, {
    causes: [cause],
    retryAfterSeconds: 1,
  });
}
