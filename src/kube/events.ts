// SPDX-License-Identifier: Apache-2.0
import { randomBytes } from "node:crypto";
import type { Clock } from "../core/clock.ts";
import { messageOf } from "../core/errors.ts";
import { podKey } from "../core/pod.ts";
import type { PodEvent, PodRef } from "../core/ports/cluster.ts";
import type { Logger } from "../core/ports/telemetry.ts";
import type { KubeClient } from "./client.ts";
import { KubeError } from "./kube-error.ts";
import { eventsPath } from "./paths.ts";

/** One pod's same reason is written at most this often; what happens between is counted into the next. */
const QUIET_MS = 60_000;
/** An Event lives for an hour by default; past this age it is written anew instead of counted up. */
const SERIES_MS = 30 * 60_000;
/** For the node as a whole: this many at once, then one per second. */
const BURST = 30;
const REFILL_MS = 1_000;
const MAX_SERIES = 2_000;
/** The API server refuses more than 1024 bytes. */
const MAX_MESSAGE = 1024;
const TIMEOUT_MS = 10_000;

export interface EventRecorderOptions {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly nodeName: string;
  /** What `kubectl describe` shows as the source. */
  readonly component: string;
  readonly signal: AbortSignal;
  /** Time of day. */
  readonly now: () => Date;
}

interface Series {
  name: string;
  firstAt: Date;
  startedAt: number;
  writtenAt: number;
  count: number;
}

/** Posts core/v1 Events about pods: repeated ones are counted up, a flood is cut off, and nothing rejects. */
export class EventRecorder {
  readonly #options: EventRecorderOptions;
  readonly #series = new Map<string, Series>();
  #tokens = BURST;
  #refilledAt: number;
  #refusedOnce = false;

  constructor(options: EventRecorderOptions) {
    this.#options = options;
    this.#refilledAt = options.clock.now();
  }

  /** Resolves when the Event is written or was found not worth writing. Never rejects. */
  async record(pod: PodRef, event: PodEvent): Promise<void> {
    const { clock, logger } = this.#options;
    const key = `${pod.uid} ${event.reason}`;
    const now = clock.now();
    let series = this.#series.get(key);
    if (series !== undefined && now - series.startedAt >= SERIES_MS) series = undefined;
    if (series !== undefined) {
      series.count += 1;
      if (now - series.writtenAt < QUIET_MS) return;
    }
    if (!this.#takeToken(now)) return;
    try {
      if (series === undefined) await this.#create(key, pod, event, now);
      else await this.#countUp(key, series, pod, event, now);
    } catch (error) {
      if (error instanceof KubeError && error.status === 403) this.#tellRefused(error);
      else {
        logger.warn("an Event was not written", { pod: podKey(pod), reason: event.reason, error: messageOf(error) });
      }
    }
  }

  async #create(key: string, pod: PodRef, event: PodEvent, now: number): Promise<void> {
    const at = this.#options.now();
    const series: Series = {
      name: `${pod.name.slice(0, 200)}.${randomBytes(8).toString("hex")}`,
      firstAt: at,
      startedAt: now,
      writtenAt: now,
      count: 1,
    };
    // Remembered before it is written: those that come meanwhile, or after a refusal, stay quiet.
    this.#remember(key, series);
    await this.#options.client.request({
      method: "POST",
      path: eventsPath(pod.namespace),
      body: this.#body(pod, event, series, at),
      signal: this.#options.signal,
      timeoutMs: TIMEOUT_MS,
    });
  }

  async #countUp(key: string, series: Series, pod: PodRef, event: PodEvent, now: number): Promise<void> {
    series.writtenAt = now;
    try {
      await this.#options.client.request({
        method: "PATCH",
        path: eventsPath(pod.namespace, series.name),
        contentType: "application/merge-patch+json",
        body: { count: series.count, lastTimestamp: rfc3339(this.#options.now()), message: cut(event.message) },
        signal: this.#options.signal,
        timeoutMs: TIMEOUT_MS,
      });
    } catch (error) {
      // Expired, or the first write never arrived.
      if (!(error instanceof KubeError) || error.status !== 404) throw error;
      await this.#create(key, pod, event, now);
    }
  }

  #body(pod: PodRef, event: PodEvent, series: Series, at: Date): unknown {
    const { nodeName } = this.#options;
    const component = event.reporter ?? this.#options.component;
    return {
      apiVersion: "v1",
      kind: "Event",
      metadata: { name: series.name, namespace: pod.namespace },
      involvedObject: { apiVersion: "v1", kind: "Pod", namespace: pod.namespace, name: pod.name, uid: pod.uid },
      type: event.type,
      reason: event.reason,
      message: cut(event.message),
      source: { component, host: nodeName },
      reportingComponent: component,
      reportingInstance: nodeName,
      firstTimestamp: rfc3339(series.firstAt),
      lastTimestamp: rfc3339(at),
      count: series.count,
    };
  }

  #remember(key: string, series: Series): void {
    this.#series.delete(key);
    this.#series.set(key, series);
    const oldest = this.#series.keys().next();
    if (this.#series.size > MAX_SERIES && oldest.done !== true) this.#series.delete(oldest.value);
  }

  #takeToken(now: number): boolean {
    const refill = Math.floor((now - this.#refilledAt) / REFILL_MS);
    this.#tokens = Math.min(BURST, this.#tokens + refill);
    this.#refilledAt += refill * REFILL_MS;
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }

  #tellRefused(error: KubeError): void {
    if (this.#refusedOnce) return;
    this.#refusedOnce = true;
    this.#options.logger.warn("Events can't be written, said once", {
      error: error.message,
      remedy: "grant create and patch on events to the agent's service account",
    });
  }
}

function rfc3339(at: Date): string {
  return `${at.toISOString().slice(0, 19)}Z`;
}

/** Cut to the server's limit in bytes, without leaving half a character. */
function cut(message: string): string {
  const bytes = Buffer.from(message, "utf8");
  if (bytes.length <= MAX_MESSAGE) return message;
  let end = MAX_MESSAGE - 3;
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return `${bytes.subarray(0, end).toString("utf8")}...`;
}
