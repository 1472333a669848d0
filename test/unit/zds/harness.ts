// SPDX-License-Identifier: Apache-2.0
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { NetnsHandle } from "../../../src/core/ports/netns.ts";
import type { LogFields, Logger, MetricLabels, Metrics } from "../../../src/core/ports/telemetry.ts";
import type { SnapshotEntry, Workload } from "../../../src/core/ports/ztunnel.ts";
import { ZdsServer } from "../../../src/zds/server.ts";
import { ZtunnelModel } from "../../support/zds-peer.ts";
import { FakeBinding, type FakePeer } from "./fake-binding.ts";
import { ManualClock, settled } from "./manual-clock.ts";

export class FakeNetns implements NetnsHandle {
  readonly id: string;
  readonly #fd: number;
  #closed = false;

  constructor(fd: number) {
    this.#fd = fd;
    this.id = netnsOf(fd);
  }

  get fd(): number {
    if (this.#closed) throw new Error("netns handle is closed");
    return this.#fd;
  }

  close(): void {
    this.#closed = true;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

export function netnsOf(fd: number): string {
  return `4:${fd}`;
}

export function workload(uid: string): Workload {
  return { uid, name: `pod-${uid}`, namespace: "ns", serviceAccount: "sa" };
}

class RecordingLogger implements Logger {
  readonly lines: { level: string; message: string; fields: LogFields }[] = [];
  debug(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: "debug", message, fields });
  }
  info(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: "info", message, fields });
  }
  warn(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: "warn", message, fields });
  }
  error(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: "error", message, fields });
  }
  child(): Logger {
    return this;
  }
}

class RecordingMetrics implements Metrics {
  readonly counters = new Map<string, number>();
  readonly gauges = new Map<string, number>();
  readonly observed: { name: string; value: number; labels: MetricLabels }[] = [];
  count(name: string, labels: MetricLabels = {}, by = 1): void {
    const key = `${name}{${Object.entries(labels)
      .map((pair) => pair.join("="))
      .join(",")}}`;
    this.counters.set(key, (this.counters.get(key) ?? 0) + by);
  }
  set(name: string, value: number): void {
    this.gauges.set(name, value);
  }
  observe(name: string, value: number, labels: MetricLabels = {}): void {
    this.observed.push({ name, value, labels });
  }
  disconnects(reason: string): number {
    return this.counters.get(`ambient_cni_zds_disconnects_total{reason=${reason}}`) ?? 0;
  }
  messages(type: string, result: string): number {
    return this.counters.get(`ambient_cni_zds_messages_total{type=${type},result=${result}}`) ?? 0;
  }
}

/** A server with everything around it fake, and the agent's pod list as a map that tests edit. */
export class Harness {
  readonly binding = new FakeBinding();
  readonly clock = new ManualClock();
  readonly logger = new RecordingLogger();
  readonly metrics = new RecordingMetrics();
  readonly directory = mkdtempSync(join(tmpdir(), "zds-"));
  readonly path = join(this.directory, "ztunnel.sock");
  readonly pods = new Map<string, SnapshotEntry>();
  readonly events: string[] = [];
  /** Who came and went. */
  readonly peers: string[] = [];
  snapshots = 0;
  readonly server = new ZdsServer({
    path: this.path,
    binding: this.binding,
    logger: this.logger,
    metrics: this.metrics,
    clock: this.clock,
    random: () => 0.5,
  });

  /** Lists a pod as the agent would; `fd` undefined = its netns is not known. */
  list(uid: string, fd?: number): FakeNetns | undefined {
    const netns = fd === undefined ? undefined : new FakeNetns(fd);
    this.pods.set(uid, { workload: workload(uid), netns });
    return netns;
  }

  serve(): void {
    this.server.serve(
      () => {
        this.snapshots++;
        return [...this.pods.values()];
      },
      {
        met: ({ connection, pid, pidfd }) => {
          const open = pidfd >= 0 && !this.binding.closedFds.includes(pidfd);
          this.peers.push(`met ${connection}, pid ${pid}, pidfd ${pidfd}${open ? " open" : ""}`);
        },
        parted: (connection) => this.peers.push(`parted ${connection}`),
        acked: (uid, connection, netns) => this.events.push(`acked ${uid} by ${connection} in ${netns}`),
        refused: (uid, connection, reason) => this.events.push(`refused ${uid} by ${connection}: ${reason}`),
        changed: () => this.events.push("changed"),
      },
    );
  }

  start(): void {
    this.server.listen();
    this.serve();
  }

  /** A ztunnel that connects, greets and answers by itself. */
  ztunnel(model = new ZtunnelModel()): { peer: FakePeer; model: ZtunnelModel } {
    const peer = this.binding.connect();
    peer.run(model, netnsOf);
    peer.hello();
    return { peer, model };
  }

  /** A ztunnel that has finished its snapshot and then waits for the test to answer. */
  async manual(): Promise<FakePeer> {
    const peer = this.binding.connect();
    peer.hello();
    for (let acks = 0; acks < 1000; acks++) {
      await settled();
      const last = peer.received.at(-1);
      if (peer.received.length > acks) peer.ack();
      if (last?.message.toString("hex") === "1a00") break;
    }
    await settled();
    peer.received.length = 0;
    return peer;
  }

  add(uid: string, fd: number, signal?: AbortSignal): Promise<string> {
    return told(this.server.add(workload(uid), new FakeNetns(fd), signal));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.stop();
    rmSync(this.directory, { recursive: true });
  }
}

/** `ok`, or the code of the rejection: never an unhandled one. */
export async function told(promise: Promise<void>): Promise<string> {
  try {
    await promise;
    return "ok";
  } catch (error) {
    return error instanceof Error && "code" in error ? String(error.code) : `${String(error)}`;
  }
}

export { settled };
