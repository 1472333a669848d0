// SPDX-License-Identifier: Apache-2.0
import type { Duplex } from "node:stream";

/** Handlers that wait for something outside (a connect) are not waited for longer than this. */
const LAST_WORDS_MS = 200;

/** One line of `connections` in the config dump; the keys are ztunnel's. */
export interface TrackedConnection {
  readonly src: string;
  readonly originalDst: string | undefined;
  readonly actualDst: string;
  readonly protocol: "HBONE" | "TCP";
}

/** Everything open in one proxy: what a drain waits for, and what its end cuts. */
export class Tracker {
  private readonly streams = new Set<Duplex>();
  private readonly inbound = new Set<TrackedConnection>();
  private readonly outbound = new Set<TrackedConnection>();
  private readonly work = new Set<Promise<void>>();
  private cut = false;

  /** `failed` hears of handlers that broke: one connection's trouble must not end the process. */
  constructor(private readonly failed: (error: unknown) => void) {}

  /** True once the proxy is over: what fails now failed because of that. */
  get over(): boolean {
    return this.cut;
  }

  /** Cut together with the proxy, unless it closes before. */
  own<T extends Duplex>(stream: T): T {
    if (this.cut) stream.destroy();
    this.streams.add(stream);
    stream.once("close", () => this.streams.delete(stream));
    return stream;
  }

  /** Handling of one connection, for the drain to wait for. */
  run(task: Promise<unknown>): void {
    const handled: Promise<void> = task.then(
      () => {},
      (error: unknown) => this.failed(error),
    );
    this.work.add(handled);
    void handled.finally(() => this.work.delete(handled));
  }

  /** Lists a connection in the dump until the returned function is called. */
  list(direction: "inbound" | "outbound", connection: TrackedConnection): () => void {
    const set = direction === "inbound" ? this.inbound : this.outbound;
    set.add(connection);
    return () => set.delete(connection);
  }

  dump(): { readonly inbound: TrackedConnection[]; readonly outbound: TrackedConnection[] } {
    return { inbound: [...this.inbound], outbound: [...this.outbound] };
  }

  /** Resolves when every connection has ended by itself, or after `ms`. */
  async drained(ms: number): Promise<void> {
    const idle = async () => {
      while (this.work.size > 0 && !this.cut) await Promise.race(this.work);
    };
    await settled(idle(), ms);
  }

  /** Cuts what is left, and gives its handlers a moment to say so. */
  async destroy(): Promise<void> {
    this.cut = true;
    for (const stream of this.streams) stream.destroy();
    await settled(Promise.all(this.work), LAST_WORDS_MS);
  }
}

/** Resolves with `work`, or after `ms`. */
async function settled(work: Promise<unknown>, ms: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([work, deadline]);
  clearTimeout(timer);
}
