// SPDX-License-Identifier: Apache-2.0
import type { ServerResponse } from "node:http";
import { ApiFailure } from "./failure.ts";
import { tooLarge } from "./listing.ts";
import type { KubeObject } from "./object.ts";
import type { ObjectStore, StoreEvent } from "./object-store.ts";
import { apiVersionOf, type Resource } from "./resources.ts";
import type { Selection } from "./selection.ts";

export type WatchLineType = "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK" | "ERROR";

export interface WatchRequest {
  readonly resource: Resource;
  readonly namespace: string | undefined;
  readonly select: Selection;
  readonly resourceVersion: string | undefined;
  readonly bookmarks: boolean;
  /** `sendInitialEvents`: a list as events, closed by an annotated bookmark. */
  readonly initialEvents: boolean;
  readonly timeoutSeconds: number;
  /** The form in which an object is sent: itself, or a Table of one row. */
  readonly render: (object: KubeObject) => unknown;
}

export interface WatchOptions {
  readonly store: ObjectStore;
  readonly response: ServerResponse;
  readonly bookmarkPeriodMs: number;
  readonly write: (response: ServerResponse, type: WatchLineType, line: string) => void;
}

/** A reader that lags this far behind is cut off, as the real server does; it will list again. */
const MAX_BEHIND = 64 * 1024 * 1024;

/** One open watch: history first, then what happens, until the time is up or somebody leaves. */
export class WatchSession {
  readonly #request: WatchRequest;
  readonly #options: WatchOptions;
  #stopListening: () => void = () => undefined;
  #timers: NodeJS.Timeout[] = [];
  #ended = false;

  constructor(request: WatchRequest, options: WatchOptions) {
    this.#request = request;
    this.#options = options;
  }

  /** @throws ApiFailure 410 or 504, before anything is sent. */
  start(): void {
    const { store, response, bookmarkPeriodMs } = this.#options;
    const asked = this.#request.resourceVersion ?? "";
    if (!/^\d*$/.test(asked)) throw new ApiFailure(400, `resourceVersion: invalid value: ${JSON.stringify(asked)}`);
    if (Number(asked) > store.version) throw tooLarge(asked, store.version);
    const fresh = asked === "" || asked === "0" || this.#request.initialEvents;
    const past = fresh ? [] : store.since(Number(asked));
    response.writeHead(200, { "content-type": "application/json" });
    response.flushHeaders();
    response.once("close", () => this.end());
    if (fresh) this.#sendCurrent();
    for (const event of past) this.#deliver(event);
    if (this.#request.initialEvents) this.bookmark({ "k8s.io/initial-events-end": "true" });
    this.#stopListening = store.listen((event) => this.#deliver(event));
    this.#timers.push(setTimeout(() => this.#timeUp(), this.#request.timeoutSeconds * 1000));
    if (this.#request.bookmarks) this.#timers.push(setInterval(() => this.bookmark(), bookmarkPeriodMs));
    for (const timer of this.#timers) timer.unref();
  }

  /** Tells the reader how far it has come, if it asked for that. */
  bookmark(annotations?: Readonly<Record<string, string>>): void {
    const { resource, bookmarks } = this.#request;
    if (!bookmarks || this.#ended) return;
    this.#send("BOOKMARK", {
      kind: resource.kind,
      apiVersion: apiVersionOf(resource),
      metadata: {
        resourceVersion: String(this.#options.store.version),
        creationTimestamp: null,
        ...(annotations === undefined ? {} : { annotations }),
      },
    });
  }

  /** Sends an ERROR event and ends the watch. */
  fail(failure: ApiFailure): void {
    if (this.#ended) return;
    this.#send("ERROR", failure.toStatus());
    this.end();
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#stopListening();
    for (const timer of this.#timers) clearTimeout(timer);
    this.#options.response.end();
  }

  #timeUp(): void {
    // So that the next watch begins where this one ended, however quiet its collection was.
    this.bookmark();
    this.end();
  }

  #sendCurrent(): void {
    const { resource, namespace, select, render } = this.#request;
    for (const object of this.#options.store.list(resource, namespace).filter(select)) {
      this.#send("ADDED", render(object));
    }
  }

  /** A selector makes objects come and go for this reader while they only change for others. */
  #deliver(event: StoreEvent): void {
    const { resource, namespace, select, render } = this.#request;
    if (this.#ended || event.resource !== resource) return;
    if (namespace !== undefined && event.object.metadata.namespace !== namespace) return;
    const before = event.previous !== undefined && select(event.previous);
    const after = event.type !== "DELETED" && select(event.object);
    if (!before && !after) return;
    const type = !before ? "ADDED" : after ? "MODIFIED" : "DELETED";
    this.#send(type, render(event.object));
  }

  #send(type: WatchLineType, object: unknown): void {
    const { response, write } = this.#options;
    write(response, type, `${JSON.stringify({ type, object })}\n`);
    if (response.writableLength > MAX_BEHIND) response.destroy();
  }
}
