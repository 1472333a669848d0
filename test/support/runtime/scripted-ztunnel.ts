// SPDX-License-Identifier: Apache-2.0
import { setTimeout } from "node:timers/promises";
import type { SeqpacketConnection } from "../../../src/native/binding.ts";
import { native } from "../../../src/native/load.ts";
import type { SandboxNode } from "../../../src/sandbox/node.ts";
import { decodeRequest, encodeAck, encodeHello, type ZdsRequest } from "../../../src/zds/peer-codec.ts";

export interface ScriptedAnswer {
  readonly afterMs?: number;
  /** Why it was not done; default: it was. */
  readonly error?: string;
}

/**
 * A ztunnel that only answers, the way it is told. It binds nothing in the pods, so that what they send is refused.
 */
export class ScriptedZtunnel implements Disposable {
  readonly seen: ZdsRequest[] = [];
  private readonly connection: SeqpacketConnection;
  private answers: Promise<void> = Promise.resolve();
  private open = true;

  constructor(
    node: SandboxNode,
    private readonly script: (request: ZdsRequest) => ScriptedAnswer,
  ) {
    this.connection = native().seqpacketConnect(node.path("run/ztunnel/ztunnel.sock"), {
      packet: (message, fds) => {
        for (const fd of fds) native().close(fd);
        this.receive(decodeRequest(message));
      },
      end: () => {
        this.open = false;
      },
    });
    this.connection.send(encodeHello());
  }

  /** False once the agent has ended the connection. */
  get connected(): boolean {
    return this.open;
  }

  [Symbol.dispose](): void {
    if (this.open) this.connection.close();
    this.open = false;
  }

  /** One message after the other, as ztunnel does. */
  private receive(request: ZdsRequest): void {
    this.seen.push(request);
    const { afterMs = 0, error = "" } = this.script(request);
    this.answers = this.answers.then(async () => {
      if (afterMs > 0) await setTimeout(afterMs);
      if (this.open) this.connection.send(encodeAck(error));
    });
  }
}
