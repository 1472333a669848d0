// SPDX-License-Identifier: Apache-2.0
import { SIDECAR_PORT } from "../../core/constants.ts";
import { messageOf } from "../../core/errors.ts";
import type { Redirection } from "../../core/redirection.ts";
import type { AddressFamily, NativeBinding } from "../../native/binding.ts";
import { Bench, deliverDatagram, expectEqual, step } from "../bench.ts";
import { ScratchPair } from "../scratch.ts";
import { addRouting } from "./routing.ts";
import { verifyRedirection } from "./verify.ts";
import type { RedirectionWriter } from "./writer.ts";

export type InterceptionMode = "REDIRECT" | "TPROXY";

/** A redirection with DNS capture; `proxy`: whose packets count as the proxy's, else nobody's here. */
export type Sample = (
  mode: InterceptionMode,
  ips: readonly string[],
  proxy: { readonly uid: number; readonly gid: number } | undefined,
) => Redirection;

/** Ports without meaning, which need no CAP_NET_BIND_SERVICE: the charts don't grant it. */
const APP_PORT = 8080;
const SERVICE_PORT = 8081;
const PASSTHROUGH = { 4: "127.0.0.6", 6: "::6" } as const;
const ANY = { 4: "0.0.0.0", 6: "::" } as const;
const LOOPBACK = { 4: "127.0.0.1", 6: "::1" } as const;
/** What istio-validation connects to. */
const VALIDATION_PORT = 15002;

/**
 * Redirects a scratch pod and makes real connections in each family, first as the application, then as the
 * proxy. Returns why that does not work, or undefined. Never rejects.
 */
export async function selfTest(
  binding: NativeBinding,
  writer: RedirectionWriter,
  mode: InterceptionMode,
  sample: Sample,
): Promise<string | undefined> {
  try {
    using pair = ScratchPair.create(binding);
    const ips = pair.families.map((family) => pair.podIp(family));
    const asApplication = sample(mode, ips, undefined);
    addRouting(binding, pair.pod.fd, asApplication);
    await writer.write(pair.pod, asApplication);
    await verifyRedirection(binding, pair.pod.fd, asApplication);
    const bench = new Bench(binding, pair);
    try {
      const families = pair.families.filter((family) => asApplication.families.includes(family));
      const proxies = new Map(families.map((family) => [family, listenAsProxy(bench, family, mode)]));
      for (const [family, listeners] of proxies) await testApplication(bench, family, listeners);
      // The owner of our own sockets is the proxy now.
      const proxy = { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 };
      await writer.write(pair.pod, sample(mode, ips, proxy));
      for (const [family, listeners] of proxies) await testProxy(bench, family, listeners);
    } finally {
      bench.close();
    }
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

interface Listeners {
  readonly outbound: number;
  readonly inbound: number;
}

function listenAsProxy(bench: Bench, family: AddressFamily, mode: InterceptionMode): Listeners {
  const own = only(family);
  return {
    outbound: bench.listen(family, ANY[family], SIDECAR_PORT.outbound, own),
    inbound: bench.listen(family, ANY[family], SIDECAR_PORT.inbound, { ...own, transparent: mode === "TPROXY" }),
  };
}

/** Listeners of the other family have the same ports. */
function only(family: AddressFamily): { readonly v6Only?: true } {
  return family === 6 ? { v6Only: true } : {};
}

async function testApplication(bench: Bench, family: AddressFamily, listeners: Listeners): Promise<void> {
  const { binding, pair } = bench;
  const service = { address: pair.remoteIp(family), port: SERVICE_PORT };
  const app = { address: pair.podIp(family), port: APP_PORT };
  const nameserver = { address: pair.remoteIp(family), port: 53 };
  await step(`IPv${family} outbound`, async () => {
    await bench.connect(pair.pod.fd, family, service, {});
    const accepted = await bench.accept(listeners.outbound, SIDECAR_PORT.outbound);
    expectEqual("original destination", bench.original(accepted), service);
  });
  await step(`IPv${family} inbound`, async () => {
    const client = binding.localEndpoint(await bench.connect(pair.remote.fd, family, app, {}));
    const accepted = await bench.accept(listeners.inbound, SIDECAR_PORT.inbound);
    expectEqual("original destination", bench.original(accepted), app);
    expectEqual("peer", bench.peer(accepted), client);
  });
  await step(`IPv${family} DNS`, async () => {
    const bind = { address: LOOPBACK[family], port: SIDECAR_PORT.dns };
    const server = binding.udpSocket(pair.pod.fd, { family, bind });
    const asker = binding.udpSocket(pair.pod.fd, { family });
    // Only the proxy's answer would go back as the nameserver's.
    await deliverDatagram(family, server, asker, nameserver);
  });
}

/** The pod's own check first, then a connection that must not come back to the proxy. */
async function testProxy(bench: Bench, family: AddressFamily, listeners: Listeners): Promise<void> {
  const { pair } = bench;
  const check = { address: PASSTHROUGH[family], port: VALIDATION_PORT };
  const service = { address: pair.remoteIp(family), port: SERVICE_PORT };
  await step(`IPv${family} validation`, async () => {
    await bench.connect(pair.pod.fd, family, check, { bind: { address: LOOPBACK[family], port: 0 } });
    const accepted = await bench.accept(listeners.inbound, SIDECAR_PORT.inbound);
    expectEqual("original destination", bench.original(accepted), check);
  });
  await step(`IPv${family} the proxy's own outbound`, async () => {
    const remote = bench.listen(family, ANY[family], SERVICE_PORT, only(family), pair.remote.fd);
    await bench.connect(pair.pod.fd, family, service, {});
    await bench.accept(remote, SERVICE_PORT);
  });
}
