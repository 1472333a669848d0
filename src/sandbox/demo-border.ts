// SPDX-License-Identifier: Apache-2.0
// The chapter of the demo about who is not in the mesh: clients outside it, and kubelet.
import { statSync } from "node:fs";
import { accessLines } from "./access-log.ts";
import type { Exchange } from "./app/protocol.ts";
import type { AppRemote } from "./app/remote.ts";
import { type Checks, expectEqual, expectThat } from "./checks.ts";
import { addressOf, endpoint, refusal, told, url } from "./demo-words.ts";
import type { RunningPod } from "./kubelet.ts";
import { probe } from "./node-command.ts";
import { ipOf } from "./pod-records.ts";
import type { Sandbox } from "./sandbox.ts";

const PROBE4 = "169.254.7.127";
const PROBE6 = "fd16:9254:7127:1337:ffff:ffff:ffff:ffff";
/** The node on the bridge. */
const NODE_IP4 = "10.66.0.1";
const NODE_IP6 = "fd66::1";

export interface BorderChapter {
  readonly sandbox: Sandbox;
  readonly checks: Checks;
  /** Pods of the mesh. */
  readonly client: RunningPod;
  readonly server: RunningPod;
  /** A pod of no mesh. */
  readonly outsider: RunningPod;
}

export async function atTheBorder({ sandbox, checks, client, server, outsider }: BorderChapter): Promise<void> {
  for (const family of [4, 6] as const) {
    await checks.check(
      `outsider-in-v${family}`,
      `outsider -> server over IPv${family}: served, its address kept`,
      async () => {
        const ip = ipOf(server, family);
        const result = await appOf(outsider).fetch(url(ip));
        expectEqual("who answered", result.server, "server");
        expectEqual("client address", addressOf(result.clientSeen), ipOf(outsider, family));
        expectEqual("getpeername at the outsider", result.clientPeer, endpoint(ip, 8080));
        return told(result);
      },
    );
    await checks.check(
      `outsider-out-v${family}`,
      `client -> outsider over IPv${family}: passed on in plain text`,
      async () => {
        const ip = ipOf(outsider, family);
        const result = await appOf(client).fetch(url(ip));
        expectEqual("who answered", result.server, "outsider");
        expectEqual("client address", addressOf(result.clientSeen), ipOf(client, family));
        expectEqual("getpeername at the client", result.clientPeer, endpoint(ip, 8080));
        return told(result);
      },
    );
    await checks.check(`probe-v${family}`, `a kubelet probe over IPv${family} reaches the app directly`, async () => {
      const began = performance.now();
      const log = sandbox.ztunnels.at(-1)?.log ?? "";
      const before = statSync(log).size;
      const { clientSeen } = JSON.parse(await probe(sandbox.node, ipOf(server, family), 8080)) as Exchange;
      const milliseconds = performance.now() - began;
      // Pods of the eBPF engine are told which connections are the node's; others know them by an address.
      const worn = family === 4 ? PROBE4 : PROBE6;
      const own = family === 4 ? NODE_IP4 : NODE_IP6;
      expectEqual("address the app saw", addressOf(clientSeen), (await sandbox.engine()) === "ebpf" ? own : worn);
      // A ztunnel that had carried it would say so when it has ended.
      await new Promise((resolve) => setTimeout(resolve, 100));
      const carried = accessLines(log, before).find(({ source }) => addressOf(source) === addressOf(clientSeen));
      expectEqual("what ztunnel says of it", carried, undefined);
      return `200 after ${milliseconds.toFixed(1)} ms; the app saw ${clientSeen}`;
    });
  }
  await checks.check("closed-port", "a port where nothing listens is refused at once", async () => {
    const error = await refusal(appOf(outsider).fetch(url(ipOf(server, 4), 9999)));
    expectThat(`took ${error.milliseconds} ms`, error.milliseconds < 1000);
    return `${error.code} after ${error.milliseconds.toFixed(1)} ms`;
  });
  for (const port of [15001, 15006]) {
    await checks.check(`ztunnel-port-${port}`, `outsider -> server:${port} is closed, no loop`, async () => {
      const error = await refusal(appOf(outsider).fetch(url(ipOf(server, 4), port)));
      expectThat(`${error.code}`, error.code !== "ETIMEDOUT");
      return `${error.code} after ${error.milliseconds.toFixed(1)} ms`;
    });
  }
}

function appOf({ name, app }: RunningPod): AppRemote {
  if (app === undefined) throw new Error(`pod ${name} has no program to talk to`);
  return app;
}
