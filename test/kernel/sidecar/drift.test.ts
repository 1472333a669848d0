// SPDX-License-Identifier: Apache-2.0
// The agent's look at pods that no queue comes to, in real network namespaces: a sidecar pod's rules that somebody
// has emptied are written again, and capture in a pod that is not of the mesh goes.
import { afterAll, beforeAll, expect, test } from "vitest";
import { Agent } from "../../../src/agent/agent.ts";
import type { Parts } from "../../../src/agent/parts.ts";
import type { Pod } from "../../../src/core/pod.ts";
import type { NetnsFinder } from "../../../src/core/ports/netns.ts";
import type { NodeDataplane } from "../../../src/dataplane/dataplane.ts";
import type { SidecarRedirector } from "../../../src/dataplane/sidecar/redirector.ts";
import { verifyRedirection } from "../../../src/dataplane/sidecar/verify.ts";
import { native } from "../../../src/native/load.ts";
import { type HeldNetns, openNetns } from "../../../src/native/netns.ts";
import { planRedirection } from "../../../src/sidecar/plan.ts";
import { sidecarSettings } from "../../../src/sidecar/settings.ts";
import { eventually, FakeParts } from "../../fakes/parts.ts";
import { specOf, startDataplane } from "../../support/lab-dataplane.ts";
import { inNetns, NetnsLab } from "../../support/netns-lab.ts";
import { redirectorOf, WRITERS } from "./ground.ts";

const proxied = NetnsLab.create();
const stray = NetnsLab.create();
const pathOf = ({ fd }: HeldNetns) => `/proc/self/fd/${fd}`;

/** Knows the two labs' pods. */
const finder: NetnsFinder = {
  find: async (pods) =>
    new Map(
      pods.flatMap(({ uid }) => {
        const lab = { "uid-proxied": proxied, "uid-stray": stray }[uid];
        return lab === undefined ? [] : [[uid, openNetns(pathOf(lab.pod.netns))] as const];
      }),
    ),
  open: (path) => openNetns(path),
  host: () => proxied.client.netns,
  missing: () => [],
  inhabited: async () => new Set(),
};

const fake = new FakeParts();
let dataplane: NodeDataplane;
let redirector: SidecarRedirector;
let agent: Agent;

beforeAll(async () => {
  const [writer] = WRITERS;
  if (writer === undefined) throw new Error("no writer");
  redirector = redirectorOf(writer, proxied.client.netns);
  dataplane = await startDataplane();
  const parts: Parts = Object.assign(Object.create(fake), { dataplane, sidecars: redirector, finder });
  agent = new Agent(parts, 1e9, { periodMs: 1e9, podsEvery: 1 });
  await agent.start();
});
afterAll(async () => {
  await agent.stop();
  redirector.close();
  dataplane.close();
  for (const lab of [proxied, stray]) lab.close();
});

const timeline = (uid: string) => agent.report.decisions(uid).pods.flatMap(({ decisions }) => decisions);

test("a sidecar pod's rules that were emptied are written again, and work", async () => {
  const pod: Pod = fake.run("proxied", {
    annotations: { "sidecar.istio.io/status": "" },
    containers: ["istio-proxy"],
    proxy: { uid: undefined, gid: undefined, role: "sidecar", env: {} },
    ips: [proxied.pod.ipv4],
  });
  const request = { containerId: "c", ifName: "eth0", podNamespace: "shop", podName: "proxied", podUid: pod.uid };
  const netns = pathOf(proxied.pod.netns);
  expect(await agent.admission.add({ ...request, netns, ips: pod.ips }, new AbortController().signal)).toBe("sidecar");
  await agent.patrol.run();
  expect(fake.drift.counts.size).toBe(0);
  await inNetns(proxied.pod.netns, "nft", "flush chain inet ambient-cni-sidecar nat-output");
  const redirection = planRedirection(sidecarSettings(pod), pod.ips);
  await expect(verifyRedirection(native(), proxied.pod.netns.fd, redirection)).rejects.toThrow();
  await agent.patrol.run();
  await verifyRedirection(native(), proxied.pod.netns.fd, redirection);
  expect(fake.drift.last).toMatchObject({
    what: "redirection",
    pod: "shop/proxied",
    detail: expect.stringMatching(/nat-output is empty$/),
  });
  expect(timeline(pod.uid).map(({ what }) => what)).toEqual(["redirected", "cni add", "repaired"]);
});

test("capture in a pod that is not of the mesh is taken out, and nothing of ours is left", async () => {
  const ips = [stray.pod.ipv4, stray.pod.ipv6];
  const { uid } = fake.run("stray", { labels: { "istio.io/dataplane-mode": "none" }, ips });
  await dataplane.capture(stray.pod.netns, specOf(stray));
  expect(dataplane.present(stray.pod.netns)).toBe(true);
  await agent.patrol.run();
  await eventually("released", () => agent.roster.size === 0);
  expect(dataplane.present(stray.pod.netns)).toBe(false);
  expect(fake.drift.counts.get("unwanted")).toBe(1);
  expect(timeline(uid).map(({ what }) => what)).toEqual(["found captured", "draining", "released"]);
});
