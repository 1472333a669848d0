// SPDX-License-Identifier: Apache-2.0
import { type BackoffOptions, backoffMs } from "../core/backoff.ts";
import type { Clock } from "../core/clock.ts";
import { AgentError } from "../core/errors.ts";

export interface QueueOptions {
  /** Keys worked on at the same time. */
  readonly concurrency: number;
  readonly backoff: BackoffOptions;
  readonly clock: Clock;
  /** One pass over a key. Rejecting means: try again later. */
  readonly work: (key: string) => Promise<void>;
  /** Told of each failed pass, with the delay until the next one in ms. */
  readonly failed: (key: string, error: unknown, retryMs: number) => void;
}

interface Waiter {
  resolve(): void;
  reject(error: unknown): void;
}

interface Entry {
  dirty: boolean;
  /** Asked for another pass by what the running one itself may have caused. */
  nudged: boolean;
  running: boolean;
  queued: boolean;
  /** On the queue's clock. */
  queuedAt: number;
  attempts: number;
  cancelRetry: (() => void) | undefined;
  /** Of that retry, on the queue's clock. */
  retryAt: number;
  /** Waiting for a pass that has not begun yet. */
  waiting: Waiter[];
}

const stopping = () => new AgentError("AGENT_STOPPING", "the agent is stopping", "the next one takes this up");

/**
 * Level-triggered work queue: one serial, coalescing queue per key, bounded concurrency across keys,
 * backoff with jitter per key. A trigger during a pass leads to exactly one further pass.
 */
export class KeyedQueue {
  private readonly entries = new Map<string, Entry>();
  private readonly urgent: string[] = [];
  private readonly normal: string[] = [];
  private active = 0;
  private paused = true;
  private stopped = false;
  private idle: (() => void)[] = [];

  constructor(private readonly options: QueueOptions) {}

  /** Keys waiting or being worked on, without those that sleep until a retry. */
  get depth(): number {
    return this.urgent.length + this.normal.length + this.active;
  }

  /** Keys whose turn has not come yet. */
  get queued(): readonly string[] {
    return [...this.urgent, ...this.normal];
  }

  /** ms for which the key has waited whose turn has not come for the longest time; 0 when none waits. */
  get oldestMs(): number {
    const since = this.queued.map((key) => this.entries.get(key)?.queuedAt ?? Number.POSITIVE_INFINITY);
    return since.length === 0 ? 0 : Math.max(0, this.options.clock.now() - Math.min(...since));
  }

  /** Keys that sleep until a retry. */
  get sleeping(): number {
    return [...this.entries.values()].filter(({ cancelRetry }) => cancelRetry !== undefined).length;
  }

  /** Keys that are being worked on. */
  get running(): ReadonlySet<string> {
    return new Set([...this.entries].filter(([, { running }]) => running).map(([key]) => key));
  }

  /** Failed passes since the last success. */
  attempts(key: string): number {
    return this.entries.get(key)?.attempts ?? 0;
  }

  /** ms until the key is tried again by itself; undefined when no retry is due. */
  retryMs(key: string): number | undefined {
    const entry = this.entries.get(key);
    if (entry?.cancelRetry === undefined) return undefined;
    return Math.max(0, entry.retryAt - this.options.clock.now());
  }

  /** Begins to work; triggers before this are kept. */
  start(): void {
    this.paused = false;
    this.pump();
  }

  /** Asks for a pass over `key`. A retry that was due later is brought forward. */
  trigger(key: string): void {
    if (!this.stopped) this.mark(this.entry(key), key, this.normal);
  }

  /**
   * As trigger, for news that the running pass may have brought about itself: when that one fails, its
   * backoff stands.
   */
  inform(key: string): void {
    const entry = this.entries.get(key);
    if (entry?.running === true) entry.nudged = true;
    else this.trigger(key);
  }

  /** As inform, for causes that a failing pass may leave behind too: a sleeping retry is not brought forward. */
  nudge(key: string): void {
    if (this.entries.get(key)?.cancelRetry === undefined) this.inform(key);
  }

  /**
   * As trigger, ahead of the others; settles with the first pass that begins after this call. A
   * rejection does not end the retries.
   */
  run(key: string): Promise<void> {
    if (this.stopped) return Promise.reject(stopping());
    const entry = this.entry(key);
    const result = new Promise<void>((resolve, reject) => entry.waiting.push({ resolve, reject }));
    this.mark(entry, key, this.urgent);
    return result;
  }

  /** No new passes; resolves when those under way have ended or `deadlineMs` is over. */
  async stop(deadlineMs: number): Promise<void> {
    this.stopped = true;
    for (const entry of this.entries.values()) {
      entry.cancelRetry?.();
      for (const waiter of entry.waiting.splice(0)) waiter.reject(stopping());
    }
    this.urgent.length = 0;
    this.normal.length = 0;
    if (this.active === 0) return;
    await new Promise<void>((resolve) => {
      this.idle.push(resolve);
      this.options.clock.after(deadlineMs, resolve);
    });
  }

  private entry(key: string): Entry {
    let entry = this.entries.get(key);
    if (entry === undefined) {
      entry = {
        dirty: false,
        nudged: false,
        running: false,
        queued: false,
        queuedAt: 0,
        attempts: 0,
        cancelRetry: undefined,
        retryAt: 0,
        waiting: [],
      };
      this.entries.set(key, entry);
    }
    return entry;
  }

  private mark(entry: Entry, key: string, lane: string[]): void {
    entry.dirty = true;
    entry.cancelRetry?.();
    entry.cancelRetry = undefined;
    if (entry.running) return;
    if (entry.queued) {
      const at = lane === this.urgent ? this.normal.indexOf(key) : -1;
      if (at >= 0) {
        this.normal.splice(at, 1);
        this.urgent.push(key);
      }
    } else {
      entry.queued = true;
      entry.queuedAt = this.options.clock.now();
      lane.push(key);
    }
    this.pump();
  }

  private pump(): void {
    while (!this.paused && !this.stopped && this.active < this.options.concurrency) {
      const key = this.urgent.shift() ?? this.normal.shift();
      if (key === undefined) return;
      void this.pass(key, this.entry(key));
    }
  }

  private async pass(key: string, entry: Entry): Promise<void> {
    this.active += 1;
    entry.queued = false;
    entry.running = true;
    entry.dirty = false;
    entry.nudged = false;
    const waiting = entry.waiting.splice(0);
    try {
      await this.options.work(key);
      entry.attempts = 0;
      entry.dirty ||= entry.nudged;
      for (const waiter of waiting) waiter.resolve();
    } catch (error) {
      const retryMs = backoffMs(this.options.backoff, entry.attempts);
      entry.attempts += 1;
      this.options.failed(key, error, retryMs);
      if (!entry.dirty && !this.stopped) {
        entry.retryAt = this.options.clock.now() + retryMs;
        entry.cancelRetry = this.options.clock.after(retryMs, () => this.trigger(key));
      }
      for (const waiter of waiting) waiter.reject(error);
    }
    entry.running = false;
    this.active -= 1;
    if (entry.dirty && !this.stopped) {
      this.mark(entry, key, entry.waiting.length > 0 ? this.urgent : this.normal);
    } else if (entry.cancelRetry === undefined && !entry.queued) {
      this.entries.delete(key);
    }
    if (this.active === 0) for (const resolve of this.idle.splice(0)) resolve();
    this.pump();
  }
}
