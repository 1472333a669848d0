// SPDX-License-Identifier: Apache-2.0
import type {
  NativeBinding,
  SeqpacketConnection,
  SeqpacketHandler,
  SeqpacketServer,
} from "../../../src/native/binding.ts";
import { encodeAck, encodeHello } from "../../../src/zds/peer-codec.ts";
import type { ZtunnelModel } from "../../support/zds-peer.ts";

export interface Received {
  readonly message: Buffer;
  readonly fd: number | undefined;
}

/** The other end of a fake connection, driven by hand or by a model of ztunnel. */
export class FakePeer {
  readonly received: Received[] = [];
  closedByAgent = false;
  pidfd = -1;
  /** Thrown by the agent's next send. */
  sendError: Error | undefined;
  #handler: SeqpacketHandler | undefined;
  #ended = false;
  #model: ZtunnelModel | undefined;
  #netnsOf: (fd: number) => string = String;

  /** The agent's side of the connection. */
  connection(pid: number, uid: number): SeqpacketConnection {
    return {
      peer: { pid, uid, gid: 0 },
      send: (message, fd) => {
        if (this.closedByAgent) throw new Error("send after close");
        if (this.sendError !== undefined) throw this.sendError;
        this.received.push({ message: Buffer.from(message), fd });
        this.#react(message, fd);
      },
      peerPidfd: () => this.pidfd,
      close: () => {
        this.closedByAgent = true;
      },
    };
  }

  attach(handler: SeqpacketHandler): void {
    this.#handler = handler;
  }

  /** Answers by itself from now on, as a ztunnel in that state would. */
  run(model: ZtunnelModel, netnsOf: (fd: number) => string): void {
    this.#model = model;
    this.#netnsOf = netnsOf;
    model.connect();
  }

  hello(version?: number): void {
    this.send(encodeHello(version));
  }

  ack(error?: string): void {
    this.send(encodeAck(error));
  }

  send(message: Buffer, fds: number[] = [], truncated = false): void {
    if (!this.#ended) this.#handler?.packet(message, fds, truncated);
  }

  /** End of file at the agent, as when the process exits. */
  close(error?: Error): void {
    if (this.#ended) return;
    this.#ended = true;
    if (!this.closedByAgent) this.#handler?.end(error);
  }

  /** What arrived, as hex. */
  hex(): string[] {
    return this.received.map(({ message }) => message.toString("hex"));
  }

  #react(message: Buffer, fd: number | undefined): void {
    const model = this.#model;
    if (model === undefined) return;
    setImmediate(() => {
      if (this.#ended) return;
      const reaction = model.receive(message, fd === undefined ? [] : [this.#netnsOf(fd)]);
      this.send(reaction.message);
      if (reaction.kind !== "ack") this.close();
    });
  }
}

/** The two natives that the ZDS server uses. */
export class FakeBinding implements Pick<NativeBinding, "seqpacketListen" | "close"> {
  readonly closedFds: number[] = [];
  path = "";
  mode = 0;
  listening = false;
  listenError: Error | undefined;
  #accepted: ((connection: SeqpacketConnection) => SeqpacketHandler) | undefined;

  close(fd: number): void {
    this.closedFds.push(fd);
  }

  seqpacketListen(
    path: string,
    mode: number,
    accepted: (connection: SeqpacketConnection) => SeqpacketHandler,
  ): SeqpacketServer {
    if (this.listenError !== undefined) throw this.listenError;
    this.path = path;
    this.mode = mode;
    this.listening = true;
    this.#accepted = accepted;
    return {
      close: () => {
        this.listening = false;
      },
    };
  }

  connect(pid = 0, uid = 0): FakePeer {
    if (this.#accepted === undefined) throw new Error("nobody listens");
    const peer = new FakePeer();
    peer.attach(this.#accepted(peer.connection(pid, uid)));
    return peer;
  }
}
