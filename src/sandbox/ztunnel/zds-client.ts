// SPDX-License-Identifier: Apache-2.0
// The client side of ZDS: ztunnel's src/inpod/workloadmanager.rs and protocol.rs.
import { type BackoffOptions, backoffMs } from "../../core/backoff.ts";
import { ZDS_MAX_MESSAGE } from "../../core/constants.ts";
import { messageOf } from "../../core/errors.ts";
import type { NativeBinding, SeqpacketConnection } from "../../native/binding.ts";
import { decodeRequest, encodeAck, encodeHello } from "../../zds/peer-codec.ts";
import { type Journal, quoted } from "./journal.ts";
import { ProtocolError, type Proxies, StartError, type ZdsMessage } from "./proxies.ts";

const RETRY_PENDING_MS = 5000;
/** Connect failures: 20 ms, doubling to 15 s, from the start at each new phase. */
const CONNECT_BACKOFF: BackoffOptions = { initialMs: 20, maxMs: 15_000, jitter: 0 };
/** A hello that could not be sent: perhaps an agent of another protocol, so never at once. */
const HELLO_BACKOFF: BackoffOptions = { initialMs: 5, maxMs: 15_000, jitter: 0.2 };

interface Packet {
  readonly message: Buffer;
  readonly fds: readonly number[];
  readonly truncated: boolean;
}

export interface ZdsClientOptions {
  readonly native: NativeBinding;
  readonly path: string;
  readonly proxies: Proxies;
  readonly journal: Journal;
  /** After every change of `ready`. */
  readonly readiness: (ready: boolean) => void;
}

export class ZdsClient {
  private stopped = false;
  private wake: () => void = () => {};
  private helloFailures = 0;

  constructor(private readonly options: ZdsClientOptions) {}

  /**
   * Serves one agent connection after the other, until `stop`.
   * @throws ProtocolError when the agent sends what makes ztunnel exit.
   */
  async run(): Promise<void> {
    while (!this.stopped) {
      const session = await this.connect();
      if (session === undefined) return;
      this.options.proxies.reset();
      try {
        await this.serve(session);
      } finally {
        session.close();
        this.options.readiness(false);
      }
    }
  }

  /** Stops reading at once; the agent sees the end of the connection. */
  stop(): void {
    this.stopped = true;
    this.wake();
  }

  private async connect(): Promise<Session | undefined> {
    const { native, path, journal } = this.options;
    for (let attempt = 0; !this.stopped; attempt++) {
      try {
        const session = new Session(native, path, () => this.wake());
        journal.log("info", "inpod", "handling new stream");
        journal.event({ event: "zds", state: "connected" });
        return session;
      } catch (error) {
        const delay = backoffMs(CONNECT_BACKOFF, attempt);
        journal.log("warn", "inpod", "failed to connect to the Istio CNI node agent, is the node agent healthy?", {
          path: quoted(path),
          details: quoted(messageOf(error)),
          retry: `${delay}ms`,
        });
        await this.sleep(delay);
      }
    }
    return undefined;
  }

  private async serve(session: Session): Promise<void> {
    const { journal } = this.options;
    try {
      await session.send(encodeHello());
      this.helloFailures = 0;
    } catch (error) {
      const delay = backoffMs(HELLO_BACKOFF, this.helloFailures++);
      journal.log("error", "inpod", "node agent announcement failed", { error: quoted(messageOf(error)) });
      await this.sleep(delay);
      return;
    }
    let retryAt: number | undefined;
    while (!this.stopped) {
      if (retryAt !== undefined && performance.now() >= retryAt) {
        retryAt = undefined;
        await this.options.proxies.retry();
        if (this.options.proxies.pendingUids.length > 0) retryAt = this.scheduleRetry();
        else this.checkReady();
        continue;
      }
      const packet = session.take();
      if (packet === undefined) {
        if (session.ended) {
          journal.log("info", "inpod", "process stream ended with eof");
          journal.event({ event: "zds", state: "disconnected" });
          return;
        }
        await this.sleep(retryAt === undefined ? undefined : retryAt - performance.now());
        continue;
      }
      const outcome = await this.handle(session, packet);
      if (outcome === "pending") retryAt ??= this.scheduleRetry();
      if (outcome === "reconnect") return;
    }
  }

  /** One message, one ack. */
  private async handle(session: Session, packet: Packet): Promise<"done" | "pending" | "reconnect"> {
    const { journal, native, proxies } = this.options;
    let outcome: "done" | "pending" | "reconnect" = "done";
    let failure: Error | undefined;
    let text = "";
    try {
      const message = decode(packet, native);
      journal.event({
        event: "zds",
        state: "message",
        kind: message.kind,
        ...("uid" in message ? { uid: message.uid } : {}),
      });
      try {
        await proxies.process(message);
        this.checkReady();
      } catch (error) {
        if (error instanceof StartError) {
          text = `failure to start proxy : ${error.message}`;
          outcome = "pending";
        } else {
          text = `failure to process message : ${error instanceof ProtocolError ? `ProtocolError(${JSON.stringify(error.message)})` : messageOf(error)}`;
          failure = error instanceof Error ? error : new Error(String(error));
        }
      }
    } catch (error) {
      text = `failure to read message : ${messageOf(error)}`;
      outcome = "reconnect";
    }
    if (text !== "") journal.log("error", "inpod", text);
    try {
      await session.send(encodeAck(text));
    } catch (error) {
      journal.log("warn", "inpod", "ack not sent", { error: quoted(messageOf(error)) });
      outcome = "reconnect";
    }
    if (failure !== undefined) throw failure;
    return outcome;
  }

  private scheduleRetry(): number {
    this.options.journal.log("info", "inpod", "scheduling retry", {
      uids: JSON.stringify(this.options.proxies.pendingUids),
    });
    return performance.now() + RETRY_PENDING_MS;
  }

  private checkReady(): void {
    this.options.readiness(this.options.proxies.ready);
  }

  /** Until something happens, or `ms` have passed. */
  private sleep(ms: number | undefined): Promise<void> {
    return new Promise((resolve) => {
      const timer = ms === undefined ? undefined : setTimeout(() => this.wake(), ms);
      this.wake = () => {
        clearTimeout(timer);
        this.wake = () => {};
        resolve();
      };
    });
  }
}

/** One connection: packets in order of arrival, and what they carried if nobody took them. */
class Session {
  ended = false;
  private readonly packets: Packet[] = [];
  private readonly connection: SeqpacketConnection;

  /** @throws NativeError when nobody listens. */
  constructor(
    private readonly native: NativeBinding,
    path: string,
    arrived: () => void,
  ) {
    this.connection = native.seqpacketConnect(path, {
      packet: (message, fds, truncated) => {
        this.packets.push({ message, fds, truncated });
        arrived();
      },
      end: () => {
        this.ended = true;
        arrived();
      },
    });
  }

  take(): Packet | undefined {
    return this.packets.shift();
  }

  /** Waits while the agent's queue is full. @throws NativeError when it is gone. */
  async send(message: Buffer): Promise<void> {
    for (;;) {
      try {
        this.connection.send(message);
        return;
      } catch (error) {
        if (!(error instanceof Error) || !("code" in error) || error.code !== "EAGAIN") throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  close(): void {
    if (!this.ended) this.connection.close();
    this.ended = true;
    for (const packet of this.packets.splice(0)) for (const fd of packet.fds) this.native.close(fd);
  }
}

/** Checks a packet in ztunnel's order; closes its fds when it is refused. @throws Error with ztunnel's words. */
function decode(packet: Packet, native: NativeBinding): ZdsMessage {
  const { fds, message, truncated } = packet;
  const [netns] = fds;
  try {
    if (fds.length > 1) throw new Error(`Expected 1 FD, got ${fds.length}`);
    if (truncated || message.length > ZDS_MAX_MESSAGE) throw new Error("received truncated message");
    const request = decodeRequest(message);
    if (request.kind === "add") {
      if (netns === undefined) throw new Error("No control message");
      return { ...request, netns };
    }
    if (netns !== undefined) throw new Error("Unexpected control message");
    return request;
  } catch (error) {
    for (const fd of fds) native.close(fd);
    throw error;
  }
}
