// SPDX-License-Identifier: Apache-2.0
// What ztunnel does with the agent's messages (its statemanager), apart from the transport: the unit
// tests feed it from a fake connection, the kernel tests from a real socket in another process.
import { decodeRequest, encodeAck, type ZdsRequest, type ZdsWorkloadInfo } from "../../src/zds/peer-codec.ts";

export interface Proxy {
  readonly netns: string;
  readonly info: ZdsWorkloadInfo;
}

/** `exit`: the real one ends its process with status 1. `disconnect`: it nacks, then connects again. */
export type Reaction =
  | { readonly kind: "ack"; readonly message: Buffer }
  | { readonly kind: "disconnect"; readonly message: Buffer; readonly reason: string }
  | { readonly kind: "exit"; readonly message: Buffer; readonly reason: string };

export class ZtunnelModel {
  /** Proxies that run; they survive a disconnect. */
  readonly proxies = new Map<string, Proxy>();
  readonly pending = new Map<string, Proxy>();
  /** Every message, as `add u1`, `keep u1`, `del u1`, `snapshot_sent`. */
  readonly log: string[] = [];
  /** Proxies that were ended, in order. */
  readonly killed: string[] = [];
  /** Uids whose proxies can't start. */
  readonly failing = new Set<string>();
  exited: string | undefined;
  #snapshotReceived = false;
  #snapshot = new Set<string>();

  /** A new connection: the agent must say everything again. */
  connect(): void {
    this.#snapshotReceived = false;
    this.#snapshot = new Set();
    this.pending.clear();
  }

  get ready(): boolean {
    return this.#snapshotReceived && this.pending.size === 0;
  }

  /** The retry that ztunnel makes every 5 s. */
  retry(): void {
    for (const [uid, proxy] of [...this.pending]) this.#startProxy(uid, proxy);
  }

  receive(message: Buffer, netns: readonly string[]): Reaction {
    if (message.length > 1024) return disconnect("truncated message");
    let request: ZdsRequest;
    try {
      request = decodeRequest(message);
    } catch (error) {
      return disconnect(String(error));
    }
    this.log.push(request.kind === "snapshot_sent" ? request.kind : `${request.kind} ${request.uid}`);
    const wanted = request.kind === "add" ? 1 : 0;
    if (netns.length !== wanted) return disconnect(`Expected ${wanted} FD, got ${netns.length}`);
    switch (request.kind) {
      case "add":
        return this.#add(request.uid, request.info, netns[0] ?? "");
      case "keep":
        if (this.#snapshotReceived) return this.#exit("keep after snapshot_sent");
        this.#snapshot.add(request.uid);
        return ack("");
      case "del":
        return this.#del(request.uid);
      case "snapshot_sent":
        if (this.#snapshotReceived) return this.#exit("second snapshot_sent");
        this.#snapshotReceived = true;
        for (const uid of [...this.proxies.keys()]) if (!this.#snapshot.has(uid)) this.#kill(uid);
        return ack("");
    }
  }

  #add(uid: string, info: ZdsWorkloadInfo | undefined, netns: string): Reaction {
    if (info === undefined) return this.#exit("add without workload_info");
    if (!this.#snapshotReceived) this.#snapshot.add(uid);
    return ack(this.#startProxy(uid, { netns, info }));
  }

  #startProxy(uid: string, proxy: Proxy): string {
    const running = this.proxies.get(uid);
    if (running?.netns === proxy.netns) {
      this.pending.delete(uid);
      return "";
    }
    if (running !== undefined) this.#kill(uid);
    if (this.failing.has(uid)) {
      this.pending.set(uid, proxy);
      return "failure to start proxy : Bind([::]:15008, Os { code: 98, kind: AddrInUse })";
    }
    this.pending.delete(uid);
    this.proxies.set(uid, proxy);
    return "";
  }

  #del(uid: string): Reaction {
    this.pending.delete(uid);
    if (!this.#snapshotReceived) this.#snapshot.delete(uid);
    else if (this.proxies.has(uid)) this.#kill(uid);
    return ack("");
  }

  #kill(uid: string): void {
    this.proxies.delete(uid);
    this.killed.push(uid);
  }

  #exit(reason: string): Reaction {
    this.exited = reason;
    return { kind: "exit", message: encodeAck(`failure to process message : ${reason}`), reason };
  }
}

function ack(error: string): Reaction {
  return { kind: "ack", message: encodeAck(error) };
}

function disconnect(reason: string): Reaction {
  return { kind: "disconnect", message: encodeAck(`failure to read message : ${reason}`), reason };
}
