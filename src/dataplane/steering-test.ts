// SPDX-License-Identifier: Apache-2.0
// What every engine must do with a scratch pod, by real connections: who answered, and what each end saw.
import { ZTUNNEL_MARK, ZTUNNEL_PORT } from "../core/constants.ts";
import { codeOf } from "../core/errors.ts";
import type { AddressFamily, NativeBinding, SocketOptions } from "../native/binding.ts";
import { Bench, exchangeDatagram, expectEqual, step } from "./bench.ts";
import type { ScratchPair } from "./scratch.ts";

/** Ports without meaning. */
const APP_PORT = 8080;
const CLOSED_PORT = 8081;
const SERVICE_PORT = 80;

/** Runs every step in each family. @throws Error that names the step and what was seen. */
export async function testSteering(
  binding: NativeBinding,
  pair: ScratchPair,
  families: readonly AddressFamily[] = pair.families,
): Promise<void> {
  const bench = new Bench(binding, pair);
  try {
    const ztunnel = { mark: ZTUNNEL_MARK, reusePort: true, transparent: true };
    const wildcard = pair.families.includes(6)
      ? { family: 6 as const, any: "::" }
      : { family: 4 as const, any: "0.0.0.0" };
    const outbound = bench.listen(wildcard.family, wildcard.any, ZTUNNEL_PORT.outbound, ztunnel);
    const inbound = bench.listen(wildcard.family, wildcard.any, ZTUNNEL_PORT.inboundPlaintext, ztunnel);
    const app = bench.listen(wildcard.family, wildcard.any, APP_PORT, {});
    for (const family of families) {
      await step(`IPv${family} outbound`, () => testOutbound(bench, family, outbound));
      await step(`IPv${family} inbound`, () => testInbound(bench, family, inbound, app));
      await step(`IPv${family} DNS`, () => testDns(bench, family));
    }
  } finally {
    bench.close();
  }
}

async function testOutbound(bench: Bench, family: AddressFamily, listener: number): Promise<void> {
  const { pair } = bench;
  const to = { address: pair.remoteIp(family), port: SERVICE_PORT };
  const own = bench.binding.localEndpoint(await bench.connect(pair.pod.fd, family, to, {}));
  const accepted = await bench.accept(listener, ZTUNNEL_PORT.outbound);
  expectEqual("original destination", bench.original(accepted), to);
  expectEqual("peer", bench.peer(accepted), { address: pair.podIp(family), port: own.port });
}

/** The client's leg, then ztunnel's leg with the very same 4-tuple: both must live. */
async function testInbound(bench: Bench, family: AddressFamily, listener: number, app: number): Promise<void> {
  const { pair } = bench;
  const to = { address: pair.podIp(family), port: APP_PORT };
  const client = bench.binding.localEndpoint(await bench.connect(pair.remote.fd, family, to, {}));
  const accepted = await bench.accept(listener, ZTUNNEL_PORT.inboundPlaintext);
  expectEqual("original destination", bench.original(accepted), to);
  expectEqual("peer", bench.peer(accepted), client);
  const worn: Partial<SocketOptions> = { bind: client, transparent: true, freebind: true, mark: ZTUNNEL_MARK };
  await bench.connect(pair.pod.fd, family, to, worn);
  expectEqual("the application's peer", bench.peer(await bench.accept(app, APP_PORT)), client);
  const closed = await bench
    .connect(pair.pod.fd, family, { ...to, port: CLOSED_PORT }, { ...worn, bind: { ...client, port: 0 } })
    .then(() => "connected", codeOf);
  if (closed !== "ECONNREFUSED") throw new Error(`a closed port ended with ${closed}, not ECONNREFUSED`);
}

async function testDns(bench: Bench, family: AddressFamily): Promise<void> {
  const { pair } = bench;
  const loopback = family === 4 ? "127.0.0.1" : "::1";
  const listener = bench.listen(family, loopback, ZTUNNEL_PORT.dns, { mark: ZTUNNEL_MARK, reusePort: true });
  await bench.connect(pair.pod.fd, family, { address: pair.remoteIp(family), port: 53 }, {});
  await bench.accept(listener, ZTUNNEL_PORT.dns);
  const server = bench.binding.udpSocket(pair.pod.fd, {
    family,
    bind: { address: loopback, port: ZTUNNEL_PORT.dns },
    mark: ZTUNNEL_MARK,
  });
  const asker = bench.binding.udpSocket(pair.pod.fd, { family });
  const seen = await exchangeDatagram(family, server, asker, { address: pair.remoteIp(family), port: 53 });
  expectEqual("source of the DNS reply", seen, { address: pair.remoteIp(family), port: 53 });
}
