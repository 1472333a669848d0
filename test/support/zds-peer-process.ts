// SPDX-License-Identifier: Apache-2.0
// A ztunnel of its own process: connects to the agent's socket, keeps the network namespaces it is
// given, and in each binds a listener that answers with the workload's uid. Driven over fork()'s IPC.
import { createServer, type Server } from "node:net";
import type { SeqpacketConnection } from "../../src/native/binding.ts";
import { native } from "../../src/native/load.ts";
import { encodeHello } from "../../src/zds/peer-codec.ts";
import { ZtunnelModel } from "./zds-peer.ts";
import { PROXY_PORT } from "./zds-peer-port.ts";

export type PeerCommand =
  | { readonly do: "connect"; readonly path: string; readonly hello: boolean }
  | { readonly do: "send"; readonly hex: string; readonly attach: boolean }
  /** False: messages are read and not answered. */
  | { readonly do: "answer"; readonly on: boolean }
  | { readonly do: "fail"; readonly uids: readonly string[] }
  | { readonly do: "disconnect" }
  | { readonly do: "report" };

export interface PeerReport {
  readonly log: readonly string[];
  readonly proxies: Readonly<Record<string, string>>;
  readonly pending: readonly string[];
  readonly ready: boolean;
  readonly connected: boolean;
  readonly exited: string | undefined;
  readonly largest: number;
}

export type PeerAnswer = { readonly error: string } | { readonly report: PeerReport };

/** The uid to become, or undefined to stay root. */
const becomes = process.argv[2] === undefined ? undefined : Number(process.argv[2]);
if (becomes !== undefined) {
  native();
  process.setgroups?.([]);
  process.setgid?.(becomes);
  process.setuid?.(becomes);
}

const model = new ZtunnelModel();
const servers = new Map<string, Server>();
let connection: SeqpacketConnection | undefined;
let answering = true;
let largest = 0;

function bind(uid: string, netns: number): void {
  servers.get(uid)?.close();
  const fd = native().tcpListen(netns, {
    family: 4,
    bind: { address: "127.0.0.1", port: PROXY_PORT },
    reusePort: true,
  });
  const server = createServer((socket) => socket.end(`${uid} by ${process.pid}`));
  server.listen({ fd });
  servers.set(uid, server);
}

function packet(message: Buffer, fds: number[]): void {
  largest = Math.max(largest, message.length);
  const ids = fds.map((fd) => {
    const { dev, ino } = native().netnsIdentify(fd);
    return `${dev}:${ino}`;
  });
  const before = new Map(model.proxies);
  const reaction = model.receive(message, ids);
  for (const [uid, proxy] of model.proxies) {
    const [fd] = fds;
    if (fd !== undefined && before.get(uid) !== proxy) bind(uid, fd);
  }
  for (const uid of before.keys()) {
    if (model.proxies.has(uid)) continue;
    servers.get(uid)?.close();
    servers.delete(uid);
  }
  // The listening socket keeps the netns, as ztunnel's do.
  for (const fd of fds) native().close(fd);
  if (!answering) return;
  try {
    connection?.send(reaction.message);
  } catch {
    // The agent has cut us off; `end` follows.
    return;
  }
  if (reaction.kind !== "ack") connection?.close();
}

function run(command: PeerCommand): void {
  switch (command.do) {
    case "connect":
      model.connect();
      connection = native().seqpacketConnect(command.path, {
        packet,
        end: () => {
          connection = undefined;
        },
      });
      if (command.hello) connection.send(encodeHello());
      return;
    case "send": {
      const netns = command.attach ? native().netnsOpen("/proc/self/ns/net") : undefined;
      connection?.send(Buffer.from(command.hex, "hex"), netns);
      if (netns !== undefined) native().close(netns);
      return;
    }
    case "answer":
      answering = command.on;
      return;
    case "fail":
      model.failing.clear();
      for (const uid of command.uids) model.failing.add(uid);
      return;
    case "disconnect":
      connection?.close();
      connection = undefined;
      return;
    case "report":
      return;
  }
}

process.on("message", (command: PeerCommand) => {
  let answer: PeerAnswer;
  try {
    run(command);
    answer = {
      report: {
        log: model.log,
        proxies: Object.fromEntries([...model.proxies].map(([uid, { netns }]) => [uid, netns])),
        pending: [...model.pending.keys()],
        ready: model.ready,
        connected: connection !== undefined,
        exited: model.exited,
        largest,
      },
    };
  } catch (error) {
    answer = { error: error instanceof Error ? error.message : String(error) };
  }
  process.send?.(answer);
});
process.on("disconnect", () => process.exit(0));
process.send?.("up");
