// SPDX-License-Identifier: Apache-2.0
// An agent that says exactly what a test tells it to, also what ours never would.
import { rmSync } from "node:fs";
import type { SeqpacketConnection, SeqpacketServer } from "../../../src/native/binding.ts";
import { native } from "../../../src/native/load.ts";
import {
  decodeAck,
  decodeHello,
  encodeAdd,
  encodeDel,
  encodeKeep,
  encodeSnapshotSent,
} from "../../../src/zds/codec.ts";
import type { TestPod } from "./pods.ts";

const DEADLINE_MS = 8_000;

/** One connection of a ztunnel. */
export class AgentConnection {
  closed = false;
  private readonly received: Buffer[] = [];
  private readonly waiting = new Set<() => void>();

  constructor(private readonly connection: SeqpacketConnection) {}

  /** The next message. @throws Error at the end of the connection, or after a while. */
  async read(): Promise<Buffer> {
    await this.until(() => this.received.length > 0 || this.closed);
    const message = this.received.shift();
    if (message === undefined) throw new Error("the connection ended");
    return message;
  }

  async hello(): Promise<number> {
    return decodeHello(await this.read());
  }

  /** Sends and waits for the answer: "" or the text of the error. */
  async ask(message: Buffer, fd?: number): Promise<string> {
    this.send(message, fd);
    return decodeAck(await this.read());
  }

  send(message: Buffer, fd?: number): void {
    this.connection.send(message, fd);
  }

  add(pod: TestPod, netns: number = pod.netns.fd, serviceAccount = `${pod.name}-sa`): Promise<string> {
    return this.ask(encodeAdd({ uid: pod.uid, name: pod.name, namespace: "default", serviceAccount }), netns);
  }

  keep(pod: TestPod): Promise<string> {
    return this.ask(encodeKeep(pod.uid));
  }

  del(pod: TestPod): Promise<string> {
    return this.ask(encodeDel(pod.uid));
  }

  snapshotSent(): Promise<string> {
    return this.ask(encodeSnapshotSent());
  }

  /** Resolves at the end of the connection. */
  async end(): Promise<void> {
    await this.until(() => this.closed);
  }

  close(): void {
    if (!this.closed) this.connection.close();
    this.closed = true;
  }

  packet(message: Buffer): void {
    this.received.push(message);
    for (const wake of [...this.waiting]) wake();
  }

  finish(): void {
    this.closed = true;
    for (const wake of [...this.waiting]) wake();
  }

  private async until(condition: () => boolean): Promise<void> {
    if (condition()) return;
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.waiting.delete(wake);
        reject(new Error(`nothing from ztunnel within ${DEADLINE_MS} ms`));
      }, DEADLINE_MS);
      const wake = () => {
        if (!condition()) return;
        clearTimeout(timer);
        this.waiting.delete(wake);
        resolve();
      };
      this.waiting.add(wake);
    });
  }
}

export class TestAgent implements Disposable {
  private readonly arrived: AgentConnection[] = [];
  private readonly all: AgentConnection[] = [];
  private readonly waiting = new Set<() => void>();
  private readonly server: SeqpacketServer;

  constructor(readonly path: string) {
    rmSync(path, { force: true });
    this.server = native().seqpacketListen(path, 0o600, (raw) => {
      const connection = new AgentConnection(raw);
      this.arrived.push(connection);
      this.all.push(connection);
      for (const wake of [...this.waiting]) wake();
      return {
        packet: (message, fds) => {
          for (const fd of fds) native().close(fd);
          connection.packet(message);
        },
        end: () => connection.finish(),
      };
    });
  }

  /** The next ztunnel that connects, after its hello. */
  async accept(): Promise<AgentConnection> {
    if (this.arrived.length === 0) {
      await new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error("no ztunnel connected")), DEADLINE_MS);
        const wake = () => {
          clearTimeout(timer);
          this.waiting.delete(wake);
          resolve();
        };
        this.waiting.add(wake);
      });
    }
    const connection = this.arrived.shift();
    if (connection === undefined) throw new Error("no ztunnel connected");
    const version = await connection.hello();
    if (version !== 1) throw new Error(`hello of version ${version}`);
    return connection;
  }

  [Symbol.dispose](): void {
    this.server.close();
    for (const connection of this.all) connection.close();
  }
}
