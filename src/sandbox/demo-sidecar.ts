// SPDX-License-Identifier: Apache-2.0
// The chapter of the demo about mixed clusters: a pod with a sidecar beside pods of the mesh.
import type { Exchange } from "./app/protocol.ts";
import { type Checks, expectEqual, expectThat } from "./checks.ts";
import { SIDECARS } from "./demo-mesh.ts";
import { addressOf, endpoint, told, url } from "./demo-words.ts";
import type { RunningPod } from "./kubelet.ts";
import { ipOf } from "./pod-records.ts";
import type { Sandbox } from "./sandbox.ts";
import type { SidecarRemote } from "./sidecar/remote.ts";

const APP_PORT = 8080;
/** Source of what a sidecar passes on to its application. */
const PASSTHROUGH = { 4: "127.0.0.6", 6: "::6" } as const;

export interface SidecarChapter {
  readonly sandbox: Sandbox;
  readonly checks: Checks;
  /** Pods of the mesh. */
  readonly client: RunningPod;
  readonly server: RunningPod;
}

/** Returns the pod with the sidecar, or undefined when it could not be started. */
export async function besideSidecars({
  sandbox,
  checks,
  client,
  server,
}: SidecarChapter): Promise<RunningPod | undefined> {
  let injected: RunningPod | undefined;
  sandbox.api.put({ kind: "Namespace", metadata: { name: SIDECARS, labels: { "istio-injection": "enabled" } } });
  await checks.check("sidecar-add", "an injected pod leaves ADD redirected, and its own check passes", async () => {
    const name = "injected";
    injected = await sandbox.kubelet.run({ namespace: SIDECARS, name, serviceAccount: name, sidecar: true });
    return "istio-validation reached 127.0.0.6:15002 through the redirection; the sidecar and the application run";
  });
  const { sidecar } = injected ?? {};
  if (injected === undefined || sidecar === undefined) return injected;
  const pod = injected;
  for (const family of [4, 6] as const) {
    await checks.check(
      `sidecar-in-v${family}`,
      `client (ambient) -> injected (sidecar) over IPv${family}`,
      async () => {
        const own = endpoint(ipOf(pod, family), APP_PORT);
        const { result, peer } = await through(sidecar, 15006, own, () => fetchFrom(client, url(ipOf(pod, family))));
        expectEqual("who answered", result.server, pod.name);
        expectEqual("client address at the sidecar", addressOf(peer), ipOf(client, family));
        expectEqual("client address at the application", addressOf(result.clientSeen), PASSTHROUGH[family]);
        expectEqual("getpeername at the client", result.clientPeer, own);
        return `${told(result)}; its sidecar saw ${peer} on 15006`;
      },
    );
    await checks.check(
      `sidecar-out-v${family}`,
      `injected (sidecar) -> server (ambient) over IPv${family}`,
      async () => {
        const to = endpoint(ipOf(server, family), APP_PORT);
        const { result, peer } = await through(sidecar, 15001, to, () => fetchFrom(pod, url(ipOf(server, family))));
        expectEqual("who answered", result.server, server.name);
        expectEqual("client address at the server", addressOf(result.clientSeen), ipOf(pod, family));
        expectEqual("getpeername at the client", result.clientPeer, to);
        return `${told(result)}; its sidecar saw ${peer} on 15001`;
      },
    );
  }
  return pod;
}

/** Does something that must come by a port of the sidecar, and tells what that saw. */
async function through(
  sidecar: SidecarRemote,
  port: number,
  original: string,
  body: () => Promise<Exchange>,
): Promise<{ readonly result: Exchange; readonly peer: string }> {
  sidecar.forget();
  const result = await body();
  const event = await sidecar.until(
    (one) => one.event === "accepted" && one.port === port && one.original === original,
  );
  expectThat("the sidecar saw nothing", event.event === "accepted");
  return { result, peer: event.event === "accepted" ? event.peer : "" };
}

async function fetchFrom({ app, name }: RunningPod, to: string): Promise<Exchange> {
  if (app === undefined) throw new Error(`pod ${name} has no program to talk to`);
  return app.fetch(to);
}
