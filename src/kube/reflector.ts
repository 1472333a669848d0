// SPDX-License-Identifier: Apache-2.0
import { backoffMs } from "../core/backoff.ts";
import type { Clock } from "../core/clock.ts";
import { AgentError, codeOf, messageOf } from "../core/errors.ts";
import type { RelistReason } from "../core/ports/cluster.ts";
import type { Logger, Metrics } from "../core/ports/telemetry.ts";
import type { KubeCall, KubeClient } from "./client.ts";
import { delay } from "./delay.ts";
import { IdleTimer } from "./idle-timer.ts";
import { isRecord, recordOf, textOf } from "./json.ts";
import { KubeError, kubeError } from "./kube-error.ts";
import { readList } from "./list-items.ts";
import type { Store, Stored } from "./store.ts";
import { parseWatchEvent, readLines } from "./watch-events.ts";

const PAGE_LIMIT = 500;
const MAX_PAGES = 1000;
const LIST_TIMEOUT_MS = 60_000;
const WATCH_HEADERS_TIMEOUT_MS = 30_000;
/** The server is asked to end a watch after about this long, so that load spreads over its replicas. */
const WATCH_SECONDS = 290;
/** Bookmarks come about once a minute even when nothing changes; three missed ones mean a dead path. */
const IDLE_MS = 3 * 60_000;
const HEALTHY_MS = 60_000;
/** Watches in a row that a server's own error ends before their first event: it may be about the version they begin at. */
const MAX_FRUITLESS = 3;
/** client-go's values. */
const BACKOFF = { initialMs: 800, maxMs: 30_000, jitter: 0.2 } as const;

export interface ReflectorOptions<T extends Stored> {
  /** Plural, for logs and metrics. */
  readonly resource: string;
  readonly path: string;
  readonly fieldSelector?: string;
  /** Undefined: unusable, and already reported. */
  readonly project: (object: unknown) => T | undefined;
  readonly store: Store<T>;
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly random: () => number;
  readonly logger: Logger;
  readonly metrics: Metrics;
}

/**
 * Keeps a store equal to a collection of the API server: list, then watch, for ever, as client-go's
 * Reflector does. It never gives up and never hurries: tries start at most one per backoff.
 */
export class Reflector<T extends Stored> {
  readonly #options: ReflectorOptions<T>;
  readonly #stop = new AbortController();
  readonly #synced: Promise<void>;
  #settleSynced: { resolve: () => void; reject: (reason: Error) => void } = { resolve: () => {}, reject: () => {} };
  #running: Promise<void> | undefined;
  #isSynced = false;
  /** Where to watch from; undefined: list first. */
  #version: string | undefined;
  /** "0" is served from any replica's cache, "" by a read that is consistent. */
  #listFrom: "0" | "" = "0";
  #paging = true;
  #attempt = 0;
  #relists = 0;
  #fruitless = 0;
  #watchOpenedAt: number | undefined;

  constructor(options: ReflectorOptions<T>) {
    this.#options = options;
    this.#synced = new Promise((resolve, reject) => {
      this.#settleSynced = { resolve, reject };
    });
    // Whoever waits hears of it; nobody has to wait.
    this.#synced.catch(() => undefined);
  }

  /** Resolves when the store holds one complete list; rejects (KUBE_STOPPED) if stopped before. */
  get synced(): Promise<void> {
    return this.#synced;
  }

  get isSynced(): boolean {
    return this.#isSynced;
  }

  get resourceVersion(): string | undefined {
    return this.#version;
  }

  get relists(): number {
    return this.#relists;
  }

  /** Seconds since the open watch began; undefined while there is none. */
  get watchAgeSeconds(): number | undefined {
    return this.#watchOpenedAt === undefined ? undefined : (this.#options.clock.now() - this.#watchOpenedAt) / 1000;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Resolves when nothing is under way any more and the socket of the watch is closed. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
    this.#settleSynced.reject(
      new AgentError("KUBE_STOPPED", `stopped before the ${this.#options.resource} were listed`),
    );
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      let failure: unknown;
      let livedMs = 0;
      try {
        if (this.#version === undefined) await this.#list();
        if (signal.aborted) return;
        await this.#watch();
      } catch (error) {
        failure = error;
      } finally {
        if (this.#watchOpenedAt !== undefined) livedMs = this.#options.clock.now() - this.#watchOpenedAt;
        this.#watchOpenedAt = undefined;
      }
      if (signal.aborted) return;
      const wait = this.#afterTry(failure, livedMs);
      if (wait > 0) await delay(this.#options.clock, wait, signal);
    }
  }

  /** Decides what the next try begins with; returns how long to wait for it, in ms. */
  #afterTry(failure: unknown, livedMs: number): number {
    const { resource, logger, metrics, random } = this.#options;
    const healthy = livedMs >= HEALTHY_MS;
    if (healthy) this.#attempt = 0;
    if (failure === undefined && healthy) return 0;
    const relist = failure === undefined ? undefined : (relistReason(failure) ?? this.#givenUp(failure));
    if (relist !== undefined) {
      if (this.#version !== undefined) {
        this.#relists += 1;
        metrics.count("ambient_cni_kube_relists_total", { resource, reason: relist });
      }
      this.#version = undefined;
      // A replica's cache may be the very thing that is too old.
      this.#listFrom = "";
    }
    const first = backoffMs(BACKOFF, 0, random);
    const full = backoffMs(BACKOFF, this.#attempt, random);
    this.#attempt += 1;
    // The time that a watch lived counts as waited: behind a balancer that cuts every connection
    // after 50 s we are not away for another 30 s each time.
    const wait = Math.max(Math.min(first, full), full - livedMs, retryAfterOf(failure));
    const fields = { resource, retryInSeconds: Math.round(wait / 100) / 10 };
    if (failure === undefined) logger.info("the API server ended the watch early", fields);
    else if (relist === "expired") logger.info("the version is too old, listing again", fields);
    else logger.warn("list and watch failed", { ...fields, error: messageOf(failure), remedy: remedyOf(failure) });
    return wait;
  }

  /** Until it lists again nothing shows what has gone meanwhile, and a list may well succeed where a watch does not. */
  #givenUp(failure: unknown): RelistReason | undefined {
    const ofServer = failure instanceof KubeError && failure.transient && failure.status !== 429;
    if (!ofServer || this.#version === undefined) return undefined;
    this.#fruitless += 1;
    return this.#fruitless < MAX_FRUITLESS ? undefined : "fruitless";
  }

  async #list(): Promise<void> {
    const { path, project, store } = this.#options;
    const items: T[] = [];
    let token: string | undefined;
    for (let page = 0; page < MAX_PAGES; page++) {
      const list = recordOf(
        await this.#page(token, (object) => {
          const item = project(object);
          if (item !== undefined) items.push(item);
        }),
      );
      const metadata = recordOf(list.metadata);
      const version = textOf(metadata.resourceVersion);
      // Go's empty list may be null.
      if (!(Array.isArray(list.items) || list.items === null) || version === "") {
        throw new AgentError("KUBE_MALFORMED", `GET ${path}: the answer is no list with items and a resourceVersion`);
      }
      token = textOf(metadata.continue) || undefined;
      if (token !== undefined) continue;
      if (this.#stop.signal.aborted) return;
      this.#paging = true;
      this.#fruitless = 0;
      this.#version = version;
      store.replace(items);
      this.#isSynced = true;
      this.#settleSynced.resolve();
      return;
    }
    throw new AgentError("KUBE_MALFORMED", `GET ${path}: the list has more than ${MAX_PAGES} pages`);
  }

  async #page(token: string | undefined, onItem: (object: unknown) => void): Promise<unknown> {
    const { client, path } = this.#options;
    const call: KubeCall = {
      method: "GET",
      path,
      query: this.#listQuery(token),
      signal: this.#stop.signal,
      timeoutMs: LIST_TIMEOUT_MS,
    };
    try {
      const stream = await client.stream(call, false);
      try {
        return await readList(stream.chunks, onItem);
      } finally {
        await stream.close();
      }
    } catch (error) {
      // History was compacted between two pages: only a list in one piece is sure to end.
      if (token !== undefined && error instanceof KubeError && error.expired) this.#paging = false;
      throw error;
    }
  }

  #listQuery(token: string | undefined): Record<string, string | undefined> {
    const { fieldSelector } = this.#options;
    return {
      fieldSelector,
      limit: this.#paging ? String(PAGE_LIMIT) : undefined,
      continue: token,
      // A continued list has the version of its first page, and the server refuses both together.
      resourceVersion: token === undefined && this.#listFrom !== "" ? this.#listFrom : undefined,
    };
  }

  async #watch(): Promise<void> {
    const { client, path, fieldSelector, clock, random } = this.#options;
    const call: KubeCall = {
      method: "GET",
      path,
      query: {
        fieldSelector,
        watch: "1",
        allowWatchBookmarks: "true",
        resourceVersion: this.#version,
        timeoutSeconds: String(Math.round(WATCH_SECONDS * (0.9 + 0.2 * random()))),
      },
      signal: this.#stop.signal,
      timeoutMs: WATCH_HEADERS_TIMEOUT_MS,
    };
    const stream = await client.stream(call, true);
    this.#watchOpenedAt = clock.now();
    const idle = new IdleTimer(clock, IDLE_MS, () => {
      stream.abort(new AgentError("KUBE_IDLE", `watch of ${path}: nothing was read for ${IDLE_MS / 1000} s`));
    });
    try {
      for await (const line of readLines(idle.watching(stream.chunks))) {
        if (this.#stop.signal.aborted) return;
        this.#take(line);
      }
    } finally {
      idle.stop();
      await stream.close();
    }
  }

  #take(line: string): void {
    const { resource, path, project, store, metrics } = this.#options;
    const event = parseWatchEvent(line);
    metrics.count("ambient_cni_kube_watch_events_total", { resource, type: event.type.toLowerCase() });
    if (event.type === "ERROR") {
      const code = isRecord(event.object) && typeof event.object.code === "number" ? event.object.code : 500;
      throw kubeError(`watch of ${path}`, code, event.object);
    }
    if (event.type !== "BOOKMARK") {
      const item = project(event.object);
      if (item !== undefined && event.type === "DELETED") store.remove(item);
      else if (item !== undefined) store.upsert(item);
    }
    this.#fruitless = 0;
    this.#version = event.resourceVersion;
  }
}

/** Why this failure needs a new list, or undefined: the watch can go on where it stopped. */
function relistReason(error: unknown): RelistReason | undefined {
  if (error instanceof KubeError) {
    if (error.expired) return "expired";
    if (error.fromFuture) return "version_too_large";
    const wait = error.transient || error.status === 401 || error.status === 403;
    return wait ? undefined : "rejected";
  }
  // The same bytes would come again from the same version.
  return codeOf(error) === "KUBE_MALFORMED" ? "malformed" : undefined;
}

function retryAfterOf(error: unknown): number {
  return error instanceof KubeError ? (error.retryAfterMs ?? 0) : 0;
}

function remedyOf(error: unknown): string | undefined {
  return error instanceof AgentError ? error.remedy : undefined;
}
