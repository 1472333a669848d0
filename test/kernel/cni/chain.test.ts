// SPDX-License-Identifier: Apache-2.0
// The whole road: installed into a chain of the real bridge and host-local plugins, run as runtimes
// run it, in a node and a pod of network namespaces.
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Installer } from "../../../install/installer.ts";
import { CniServer } from "../../../src/cniserver/server.ts";
import type { CniPodRequest } from "../../../src/core/ports/cni.ts";
import { type Attachment, CniChain } from "../../../src/sandbox/cni-chain.ts";
import { pluginBinary } from "../../support/cni-plugin.ts";
import { LogRecorder, MetricRecorder } from "../../support/recorder.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

const NODE = `ambient-cni-node-${process.pid}`;
const POD = `ambient-cni-pod-${process.pid}`;

const ip = (...args: string[]) => execFileSync("ip", args, { encoding: "utf8" });
const addressesOfPod = () =>
  (JSON.parse(ip("-n", POD, "-j", "address", "show", "scope", "global")) as { addr_info?: { local?: string }[] }[])
    // Where a filter applies, ip leaves empty objects behind.
    .flatMap(({ addr_info = [] }) => addr_info.flatMap(({ local }) => (local === undefined ? [] : [local])))
    .sort();

let dir: ScratchDir;
let confText: string;
let installer: Installer;
let chain: CniChain;
let attachment: Attachment;

beforeEach(() => {
  dir = new ScratchDir();
  for (const name of ["bin", "net.d", "run", "source"]) mkdirSync(dir.file(name));
  ip("netns", "add", NODE);
  ip("netns", "add", POD);
  ip("-n", NODE, "link", "set", "lo", "up");
  confText = `{
    "cniVersion": "1.0.0", "name": "chain-test",
    "plugins": [
      {
        "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false,
        "ipam": { "type": "host-local", "dataDir": ${JSON.stringify(dir.file("ipam"))},
          "ranges": [[{ "subnet": "10.244.7.0/24" }], [{ "subnet": "fd00:244:7::/64" }]] }
      }
    ]
}
`;
  writeFileSync(dir.file("net.d/10-primary.conflist"), confText);
  writeFileSync(dir.file("source/istio-cni"), readFileSync(pluginBinary()));
  installer = new Installer(
    {
      chained: true,
      cniBinDir: dir.file("bin"),
      cniConfGroupRead: false,
      cniConfName: "",
      cniNetDir: dir.file("net.d"),
      istioOwnedConfig: false,
      istioOwnedConfigName: "02-istio-cni.conflist",
      pluginSourceDir: dir.file("source"),
      runDir: dir.file("run"),
    },
    { type: "istio-cni", cni_agent_run_dir: dir.file("run"), agent_away: "namespace" },
    new LogRecorder(),
    new MetricRecorder(),
  );
  chain = new CniChain(dir.file("net.d/10-primary.conflist"), {
    binDirs: [dir.file("bin"), "/usr/lib/cni"],
    wrap: (argv) => ["nsenter", `--net=/var/run/netns/${NODE}`, "--", ...argv],
  });
  attachment = {
    containerId: "c0ffee",
    netns: `/var/run/netns/${POD}`,
    ifName: "eth0",
    pod: { namespace: "shop", name: "cart-0", uid: "6f0c-1" },
  };
});
afterEach(() => {
  for (const name of [POD, NODE]) ip("netns", "del", name);
  dir[Symbol.dispose]();
});

const leases = () => readdirSync(dir.file("ipam/chain-test")).filter((name) => /^[0-9a-f.:]+$/.test(name));

describe("the installed chain", () => {
  it("asks the agent when the pod's interface is there, and prints bridge's result", async () => {
    await installer.install();
    const seen: { request: CniPodRequest; addresses: string[] }[] = [];
    const server = new CniServer({
      runDir: dir.file("run"),
      logger: new LogRecorder(),
      metrics: new MetricRecorder(),
      handler: {
        add: async (request) => {
          seen.push({ request, addresses: addressesOfPod() });
          return "ambient";
        },
        check: async () => undefined,
      },
    });
    await server.listen();
    try {
      const result = await chain.add(attachment);
      expect(result.ips).toHaveLength(2);
      expect([...result.ips].sort()).toEqual(addressesOfPod());
      expect(JSON.parse(result.text)).toMatchObject({
        cniVersion: "1.0.0",
        interfaces: [{ name: "cni0" }, {}, { name: "eth0", sandbox: attachment.netns }],
      });
      expect(seen).toEqual([
        {
          request: {
            containerId: "c0ffee",
            netns: attachment.netns,
            ifName: "eth0",
            podNamespace: "shop",
            podName: "cart-0",
            podUid: "6f0c-1",
            ips: result.ips,
          },
          addresses: addressesOfPod(),
        },
      ]);
      await chain.check(attachment);
    } finally {
      await server.stop();
    }

    // DEL needs no agent.
    await chain.del(attachment);
    expect(addressesOfPod()).toEqual([]);
    expect(leases()).toEqual([]);
  });

  it("holds the pod back while the agent is away, and DEL gives its addresses back", async () => {
    await installer.install();
    await expect(chain.add(attachment)).rejects.toMatchObject({
      plugin: "istio-cni",
      command: "ADD",
      code: 11,
      msg: expect.stringContaining("pluginevent.sock"),
    });
    expect(leases()).toHaveLength(2);
    await chain.del(attachment);
    expect(leases()).toEqual([]);
    expect(addressesOfPod()).toEqual([]);
  });

  it("is the primary's alone again after restore", async () => {
    await installer.install();
    await installer.restore();
    expect(readFileSync(dir.file("net.d/10-primary.conflist"), "utf8")).toBe(confText);
    expect((await chain.add(attachment)).ips).toHaveLength(2);
    await chain.del(attachment);
  });
});
