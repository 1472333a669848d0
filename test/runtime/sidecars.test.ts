// SPDX-License-Identifier: Apache-2.0
// Sidecar pods on a node without ambient, by kubelet's path, under istio-cni's own chart with the fewest mounts that
// it has: neither the node's /proc nor the runtime's directory of netns is in the agent's container.
import { beforeAll, expect, test } from "vitest";
import { ipOf } from "../../src/sandbox/pod-records.ts";
import { until } from "../../src/sandbox/until.ts";
import { stockChart } from "../support/runtime/charts.ts";
import { type CriPod, POD_PORT } from "../support/runtime/cri-kubelet.ts";
import { PROXY, sidecarEvents } from "../support/runtime/cri-sidecar.ts";
import { useCluster } from "../support/runtime/use-cluster.ts";

const OUTBOUND = 15001;
const INBOUND = 15006;
const FAILED = 126;

const cluster = useCluster(() => ({ chart: stockChart({ ambient: false, repairPods: false }) }), { bare: true });
let plain: CriPod;
let injected: CriPod;
/** What became of a pod that nobody redirects: its namespace is excluded. */
let excluded: Promise<unknown>;

beforeAll(async () => {
  await cluster().startAgent();
  for (const namespace of ["shop", "kube-system"]) cluster().namespace(namespace, "none");
  const { kubelet } = cluster();
  excluded = kubelet
    .run({ namespace: "kube-system", name: "excluded", sidecar: true })
    .catch((error: unknown) => error);
  plain = await kubelet.run({ namespace: "shop", name: "plain" });
  const args = ["first", ipOf(plain, 4), String(POD_PORT), "marker", "injected"];
  injected = await kubelet.run({ namespace: "shop", name: "injected", sidecar: true, args });
});

/** Peers, by what the sidecar's listener on this port saw, of connections to this destination. */
async function peersAt(port: number, to: string): Promise<string[]> {
  const peers = () =>
    sidecarEvents(cluster().kubelet.output(injected, PROXY.name)).flatMap((one) =>
      one.event === "accepted" && one.port === port && one.original === to ? [one.peer] : [],
    );
  await until(`the sidecar's ${port} has seen ${to}`, () => peers().length > 0);
  return peers();
}

const endpoint = (pod: CriPod, family: 4 | 6) => `${ipOf(pod, family)}:${POD_PORT}`;

test("the pod's own check passes, and its first process already speaks through the sidecar", async () => {
  const { kubelet } = cluster();
  await until("its first connection has ended", () => kubelet.output(injected).length > 0);
  const own = ipOf(injected, 4);
  expect(JSON.parse(kubelet.output(injected)[0] ?? "")).toMatchObject({
    server: "plain",
    clientSeen: expect.stringMatching(`^${own}:`),
    clientPeer: endpoint(plain, 4),
  });
  expect(await peersAt(OUTBOUND, endpoint(plain, 4))).toEqual([expect.stringMatching(`^${own}:`)]);
});

test.each([4, 6] as const)("over IPv%d both ways go through the sidecar", async (family) => {
  const { kubelet } = cluster();
  const passthrough = family === 4 ? "127.0.0.6" : "::6";
  expect(await kubelet.connect(plain, injected, "in", family)).toMatchObject({
    server: "injected",
    clientSeen: expect.stringMatching(`^${passthrough}:`),
    clientPeer: endpoint(injected, family),
  });
  expect(await peersAt(INBOUND, endpoint(injected, family))).toEqual([
    expect.stringMatching(`^${ipOf(plain, family)}:`),
  ]);
  expect(await kubelet.connect(injected, plain, "out", family)).toMatchObject({
    server: "plain",
    clientSeen: expect.stringMatching(`^${ipOf(injected, family)}:`),
    clientPeer: endpoint(plain, family),
  });
  const peers = await peersAt(OUTBOUND, endpoint(plain, family));
  expect(peers.at(-1)).toMatch(`${ipOf(injected, family)}:`);
});

test("without a redirection the same pod's check ends with 126, and neither proxy nor application starts", async () => {
  expect(await excluded).toMatchObject({ name: "CheckFailed", exitCode: FAILED });
});
