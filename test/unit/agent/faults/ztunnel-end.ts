// SPDX-License-Identifier: Apache-2.0
import type { NativeBinding, SeqpacketConnection, SeqpacketHandler } from "../../../../src/native/binding.ts";
import { decodeRequest, encodeAck, encodeHello, type ZdsRequest } from "../../../../src/zds/peer-codec.ts";
import type { ZtunnelModel } from "../../../support/zds-peer.ts";
import type { Fate } from "./fault-point.ts";

export interface ZtunnelEndOptions {
  readonly model: ZtunnelModel;
  readonly netnsOf: (fd: number) => string;
  /** What becomes of a message. */
  readonly fault: (message: string) => Fate;
  readonly kill: () => void;
  readonly happened: () => void;
  /** Either side has. */
  readonly closed: () => void;
  /** A proxy could not be started. */
  readonly refused: () => void;
  /** What it has acked before, on this connection. */
  readonly repeated: (uid: string) => void;
}

/** ztunnel's end of one connection: its model answers, but for the message that meets a fault. */
export class ZtunnelEnd {
  open = true;
  #handler: SeqpacketHandler | undefined;
  readonly #acked = new Map<string, string | undefined>();

  constructor(private readonly options: ZtunnelEndOptions) {
    options.model.connect();
  }

  greet(handler: SeqpacketHandler): void {
    this.#handler = handler;
    handler.packet(encodeHello(), [], false);
  }

  /** The agent's end. */
  connection(): SeqpacketConnection {
    return {
      peer: { pid: 0, uid: 0, gid: 0 },
      peerPidfd: () => -1,
      send: (message, fd) => {
        if (!this.open) throw new Error("EPIPE");
        const netns = fd === undefined ? [] : [this.options.netnsOf(fd)];
        setImmediate(() => this.#receive(Buffer.from(message), netns));
      },
      close: () => this.#end(),
    };
  }

  /** End of file. */
  close(): void {
    if (!this.open) return;
    this.#end();
    this.#handler?.end(undefined);
  }

  #end(): void {
    if (!this.open) return;
    this.open = false;
    this.options.closed();
  }

  #receive(message: Buffer, netns: readonly string[]): void {
    if (!this.open) return;
    const { model, happened } = this.options;
    happened();
    const request = decodeRequest(message);
    switch (this.options.fault(request.kind)) {
      case undefined:
        this.#note(request, netns);
        this.#answer(model.receive(message, netns).message);
        return;
      case "refused":
        if (request.kind === "snapshot_sent") this.#answer(encodeAck("it can't be done"));
        else this.#refuse(message, netns, request.uid);
        return;
      case "lost":
        model.receive(message, netns);
        this.close();
        return;
      case "late":
        // No answer ever comes: the agent gives this connection up.
        model.receive(message, netns);
        return;
      case "killed before":
        this.options.kill();
        return;
      case "killed after":
        model.receive(message, netns);
        this.options.kill();
    }
  }

  #note(request: ZdsRequest, [netns]: readonly string[]): void {
    if (request.kind === "del") this.#acked.delete(request.uid);
    if (request.kind !== "add") return;
    const { model, repeated } = this.options;
    if (this.#acked.get(request.uid) === netns && model.proxies.has(request.uid)) repeated(request.uid);
    this.#acked.set(request.uid, netns);
  }

  /** A proxy that does not start; it never refuses anything else. */
  #refuse(message: Buffer, netns: readonly string[], uid: string): void {
    const { model, refused } = this.options;
    model.failing.add(uid);
    const { message: answer } = model.receive(message, netns);
    model.failing.delete(uid);
    if (model.pending.has(uid)) refused();
    this.#answer(answer);
  }

  #answer(message: Buffer): void {
    if (this.open) this.#handler?.packet(message, [], false);
  }
}

/** The natives of a ZDS server, with whoever connects to it. */
export class ZtunnelDoor implements Pick<NativeBinding, "seqpacketListen" | "close"> {
  #accepted: ((connection: SeqpacketConnection) => SeqpacketHandler) | undefined;

  close(): void {}

  seqpacketListen(_path: string, _mode: number, accepted: (connection: SeqpacketConnection) => SeqpacketHandler) {
    this.#accepted = accepted;
    return { close: () => this.shut() };
  }

  shut(): void {
    this.#accepted = undefined;
  }

  /** undefined: nobody listens. */
  connect(options: ZtunnelEndOptions): ZtunnelEnd | undefined {
    if (this.#accepted === undefined) return undefined;
    const end = new ZtunnelEnd(options);
    end.greet(this.#accepted(end.connection()));
    return end;
  }
}
