// SPDX-License-Identifier: Apache-2.0
import { ZTUNNEL_PORT } from "../../core/constants.ts";
import { codeOf, messageOf } from "../../core/errors.ts";
import { DnsServer } from "./dns-server.ts";
import { InboundHbone } from "./inbound-hbone.ts";
import { acceptPlaintext } from "./inbound-plaintext.ts";
import { type Journal, quoted } from "./journal.ts";
import { Outbound } from "./outbound.ts";
import type { PodListener } from "./pod-sockets.ts";
import type { ProxyContext } from "./proxy-context.ts";

/** A port that could not be bound, in ztunnel's words. */
export class BindError extends Error {
  constructor(address: string, cause: unknown) {
    super(`Bind(${address}, ${describe(cause)})`, { cause });
  }
}

/** The listeners of one pod and everything that goes through them. */
export class PodProxy {
  private dns: DnsServer | undefined;
  private readonly listeners: PodListener[] = [];
  private readonly outbound: Outbound;
  private readonly hbone: InboundHbone;

  private constructor(private readonly context: ProxyContext) {
    this.outbound = new Outbound(context);
    this.hbone = new InboundHbone(context);
  }

  /**
   * Binds everything, in ztunnel's order: DNS, 15008, 15006, 15001.
   * @throws BindError when one can't be bound; those before it are closed again.
   */
  static async start(context: ProxyContext): Promise<PodProxy> {
    const proxy = new PodProxy(context);
    try {
      await proxy.listen();
      return proxy;
    } catch (error) {
      proxy.closeListeners();
      context.sockets.close();
      throw error;
    }
  }

  /** What is open, for the config dump. */
  connections(): ReturnType<ProxyContext["tracker"]["dump"]> {
    return this.context.tracker.dump();
  }

  /**
   * `immediate` cuts open connections; `graceful` gives them the drain time to end. The listeners close at
   * once in both cases. Resolves when nothing is left.
   */
  async stop(mode: "immediate" | "graceful"): Promise<void> {
    this.closeListeners();
    if (mode === "graceful") {
      this.hbone.drain();
      await this.context.tracker.drained(this.context.settings.drainMs);
    }
    this.outbound.pool.destroy();
    this.context.sockets.close();
    await this.context.tracker.destroy();
  }

  private async listen(): Promise<void> {
    const { context } = this;
    if (context.settings.dnsCapture) {
      this.dns = await DnsServer.start(context).catch((error: unknown) => {
        throw new BindError(`loopback:${ZTUNNEL_PORT.dns}`, error);
      });
      context.journal.log("info", "dns", "starting local DNS server", { component: quoted("dns") });
    }
    await this.bind("inbound", ZTUNNEL_PORT.inboundHbone, true, (socket, transparent) =>
      this.hbone.accept(socket, transparent),
    );
    await this.bind("inbound plaintext", ZTUNNEL_PORT.inboundPlaintext, false, (socket, transparent) =>
      acceptPlaintext(context, socket, transparent),
    );
    await this.bind("outbound", ZTUNNEL_PORT.outbound, false, (socket) => this.outbound.accept(socket));
  }

  private async bind(
    component: string,
    port: number,
    tunnel: boolean,
    accepted: (socket: Parameters<Outbound["accept"]>[0], transparent: boolean) => void,
  ): Promise<PodListener> {
    const address = this.context.settings.ipv6 ? `[::]:${port}` : `0.0.0.0:${port}`;
    let transparent = false;
    const listener = await this.context.sockets
      .listenOnAll(port, tunnel, (socket) => accepted(socket, transparent))
      .catch((error: unknown) => {
        throw new BindError(address, error);
      });
    transparent = listener.transparent;
    this.listeners.push(listener);
    this.context.journal.log("info", "proxy", "listener established", {
      address,
      component: quoted(component),
      transparent: String(transparent),
    });
    return listener;
  }

  private closeListeners(): void {
    this.dns?.close();
    this.dns = undefined;
    for (const { server } of this.listeners.splice(0)) server.close();
  }
}

/** Tells what stopped an add, for logs. */
export function logStartFailure(journal: Journal, uid: string, error: unknown): void {
  journal.log("error", "inpod", "failed to start proxy", { uid: quoted(uid), error: quoted(messageOf(error)) });
}

/** An errno as Rust prints an io::Error of the system, e.g. `Os { code: 98, kind: AddrInUse, … }`. */
function describe(error: unknown): string {
  const kinds: Record<string, string> = { EADDRINUSE: "AddrInUse", EPERM: "PermissionDenied", EINVAL: "InvalidInput" };
  const errno =
    error instanceof Error && "errno" in error && typeof error.errno === "number" ? -error.errno : undefined;
  if (errno === undefined) return messageOf(error);
  const kind = kinds[codeOf(error)] ?? codeOf(error);
  return `Os { code: ${errno}, kind: ${kind}, message: ${JSON.stringify(messageOf(error))} }`;
}
