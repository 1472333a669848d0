// SPDX-License-Identifier: Apache-2.0
import { lstatSync, mkdirSync, renameSync, unlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { type Clock, systemClock } from "../core/clock.ts";
import { RUN_FILE } from "../core/constants.ts";
import { messageOf } from "../core/errors.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { Logger } from "../core/ports/telemetry.ts";
import type { NativeBinding, SeqpacketConnection, SeqpacketHandler, SeqpacketServer } from "../native/binding.ts";
import { HeldNetns } from "../native/netns.ts";
import { requireSocketPath } from "../sys/files.ts";
import { isContainerId } from "./request.ts";

export interface NetnsHandoverOptions {
  readonly runDir: string;
  readonly binding: Pick<NativeBinding, "seqpacketListen" | "close">;
  readonly logger: Logger;
  readonly clock?: Clock;
}

/** Only root may connect: whoever does has a netns changed. */
const SOCKET_MODE = 0o600;
/** As many as there may be requests in work. */
const MAX_CONNECTIONS = 256;
/** More than the plugin gives an ADD, in ms. */
const CONNECTION_MS = 20_000;
const ACCEPTED = "ok";

/**
 * Takes pods' network namespaces from the plugin, on `<run dir>/netns.sock`: the plugin lives on the node, and
 * reaches what no mount of the agent's container leads to. One packet, the container's id with two fds: the
 * pod's netns and the plugin's own. What nobody took is closed with the connection.
 */
export class NetnsHandover {
  private readonly path: string;
  private readonly logger: Logger;
  private readonly clock: Clock;
  private readonly held = new Map<string, HeldNetns>();
  private readonly connections = new Set<() => void>();
  private server: SeqpacketServer | undefined;
  private own: bigint | undefined;

  constructor(private readonly options: NetnsHandoverOptions) {
    this.path = join(options.runDir, RUN_FILE.netnsSocket);
    this.logger = options.logger.child("cni-server");
    this.clock = options.clock ?? systemClock;
  }

  /** Binds, in place of a socket that a former run left behind. @throws AgentError NOT_A_SOCKET, NativeError, errors of the file system */
  listen(): void {
    mkdirSync(dirname(this.path), { recursive: true, mode: 0o750 });
    requireSocketPath(this.path);
    // Not longer than the socket's own name, whose path may have just as many bytes as are allowed.
    const draft = join(dirname(this.path), ".netns");
    try {
      unlinkSync(draft);
    } catch {
      // None was left by an agent that died here.
    }
    const server = this.options.binding.seqpacketListen(draft, SOCKET_MODE, (connection) => this.accept(connection));
    try {
      this.own = lstatSync(draft, { bigint: true }).ino;
      renameSync(draft, this.path);
    } catch (error) {
      server.close();
      unlinkSync(draft);
      throw error;
    }
    this.server = server;
  }

  /** Stops listening, removes the socket unless a successor's is there, and ends every connection. Idempotent. */
  stop(): void {
    if (this.server !== undefined) {
      if (lstatSync(this.path, { bigint: true, throwIfNoEntry: false })?.ino === this.own) unlinkSync(this.path);
      this.server.close();
      this.server = undefined;
    }
    for (const end of [...this.connections]) end();
  }

  /** The netns that was handed over for this container; the caller owns it. */
  take(containerId: string): NetnsHandle | undefined {
    const netns = this.held.get(containerId);
    this.held.delete(containerId);
    return netns;
  }

  private accept(connection: SeqpacketConnection): SeqpacketHandler {
    let owned: readonly [string, HeldNetns] | undefined;
    const release = () => {
      this.connections.delete(end);
      cancel();
      if (owned === undefined || this.held.get(owned[0]) !== owned[1]) return;
      this.held.delete(owned[0]);
      owned[1].close();
    };
    const end = () => {
      connection.close();
      release();
    };
    const cancel = this.clock.after(CONNECTION_MS, end);
    this.connections.add(end);
    const refuse = (why: string) => {
      this.logger.warn("a netns that was handed over is refused", { why });
      send(connection, why);
      end();
    };
    return {
      packet: (message, fds, truncated) => {
        if (this.connections.size > MAX_CONNECTIONS || connection.peer.uid !== 0 || truncated || owned !== undefined) {
          for (const fd of fds) this.options.binding.close(fd);
          return refuse("one packet from root is taken, and no more at once than there are requests");
        }
        try {
          owned = this.receive(message.toString("latin1"), fds);
        } catch (error) {
          return refuse(messageOf(error));
        }
        if (!send(connection, ACCEPTED)) end();
      },
      end: release,
    };
  }

  /** Takes over the fds, also when this throws. */
  private receive(containerId: string, fds: readonly number[]): readonly [string, HeldNetns] {
    const adopted: HeldNetns[] = [];
    try {
      for (const [at, fd] of fds.entries()) {
        try {
          adopted.push(HeldNetns.adopt(fd, "handed over by the plugin"));
        } catch {
          for (const left of fds.slice(at + 1)) this.options.binding.close(left);
          throw new Error("what was handed over is no network namespace");
        }
      }
      const [pods, own, ...more] = adopted;
      if (!isContainerId(containerId)) throw new Error("the packet is not the id of a container");
      if (pods === undefined || own === undefined || more.length > 0) throw new Error("two namespaces are expected");
      if (pods.id === own.id) throw new Error("it is the network namespace of the node itself");
      own.close();
      this.held.get(containerId)?.close();
      this.held.set(containerId, pods);
      return [containerId, pods];
    } catch (error) {
      for (const netns of adopted) netns.close();
      throw error;
    }
  }
}

function send(connection: SeqpacketConnection, text: string): boolean {
  try {
    connection.send(Buffer.from(text));
    return true;
  } catch {
    // It has gone, or does not read.
    return false;
  }
}
