// SPDX-License-Identifier: Apache-2.0
// Port 15053, on the pod's loopback only (ztunnel's src/dns/server.rs).
import type { Socket as UdpSocket } from "node:dgram";
import type { Server, Socket } from "node:net";
import { ZTUNNEL_PORT } from "../../core/constants.ts";
import { messageOf } from "../../core/errors.ts";
import { answer, type DnsContext, logDnsFailure } from "./dns-answer.ts";
import { forwardQuery } from "./dns-forward.ts";
import { readMessages, writeMessage } from "./dns-stream.ts";
import { quoted } from "./journal.ts";
import type { ProxyContext } from "./proxy-context.ts";

const TCP_IDLE_MS = 5000;
/** Queries being answered at once, per pod; each may hold a socket to the upstream resolver. */
const MAX_IN_FLIGHT = 512;

export class DnsServer {
  private readonly dns: DnsContext;
  private readonly udp: UdpSocket[] = [];
  private readonly tcp: Server[] = [];
  private inFlight = 0;

  private constructor(private readonly context: ProxyContext) {
    const { settings, journal, local, sockets } = context;
    const upstream = settings.dnsUpstream;
    this.dns = {
      settings,
      journal,
      local,
      forward: async (query) => {
        if (upstream === undefined) return undefined;
        return forwardQuery(sockets, upstream, query).catch((error: unknown) => {
          journal.log("warn", "dns", "forwarding failed", { error: quoted(messageOf(error)) });
          return undefined;
        });
      },
    };
  }

  /** Binds TCP and UDP on 127.0.0.1, and on ::1 where the pod's lo has IPv6. @throws NativeError of bind. */
  static async start(context: ProxyContext): Promise<DnsServer> {
    const server = new DnsServer(context);
    try {
      for (const address of context.sockets.loopbackHasIpv6() ? ["127.0.0.1", "::1"] : ["127.0.0.1"]) {
        const accepted = (socket: Socket) => server.serveTcp(socket);
        server.tcp.push(await context.sockets.listenOn(address, ZTUNNEL_PORT.dns, accepted));
        const udp = await context.sockets.udp(address, ZTUNNEL_PORT.dns);
        server.udp.push(udp);
        udp.on("error", (error) => logDnsFailure(context.journal, error));
        udp.on("message", (message, from) => {
          server.reply(message, true, (reply) => {
            if (server.udp.includes(udp)) udp.send(reply, from.port, from.address);
          });
        });
      }
    } catch (error) {
      server.close();
      throw error;
    }
    return server;
  }

  /** Closes the listening sockets; an answer that is being looked up is not sent any more. */
  close(): void {
    for (const socket of [...this.udp.splice(0), ...this.tcp.splice(0)]) socket.close();
  }

  private serveTcp(socket: Socket): void {
    this.context.tracker.own(socket);
    socket.setTimeout(TCP_IDLE_MS, () => socket.destroy());
    let open = 0;
    let ended = false;
    const endIfDone = () => {
      if (ended && open === 0) socket.end();
    };
    // A client may close its side once it has asked; what it asked is answered first.
    socket.once("end", () => {
      ended = true;
      endIfDone();
    });
    readMessages(socket, (message) => {
      open += 1;
      const answered = () => {
        open -= 1;
        endIfDone();
      };
      const send = (reply: Buffer) => {
        if (socket.writable) writeMessage(socket, reply);
      };
      this.reply(message, false, send, answered);
    });
  }

  /** Answers one query, or none when too many are waiting. `over` is called in either case. */
  private reply(message: Buffer, udp: boolean, send: (reply: Buffer) => void, over: () => void = () => {}): void {
    const { tracker, journal } = this.context;
    if (this.inFlight >= MAX_IN_FLIGHT) {
      over();
      return;
    }
    this.inFlight += 1;
    const work = answer(this.dns, message, udp)
      .then(
        (reply) => {
          if (reply !== undefined) send(reply);
        },
        (error: unknown) => logDnsFailure(journal, error),
      )
      .finally(() => {
        this.inFlight -= 1;
        over();
      });
    tracker.run(work);
  }
}
