// SPDX-License-Identifier: Apache-2.0
// What the way between a captured pod and the node takes from its packets: what AMB-108 and AMB-411 say is so.
import { createSocket } from "node:dgram";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { PROBE_SNAT_IPV4, PROBE_SNAT_IPV6 } from "../../../src/core/constants.ts";
import { NOBODY } from "../../../src/dataplane/nobody.ts";
import { SnatExemption } from "../../../src/dataplane/probe-exemption/snat.ts";
import { PodProver } from "../../../src/dataplane/proof/prover.ts";
import { native } from "../../../src/native/load.ts";
import { createNetns, type HeldNetns } from "../../../src/native/netns.ts";
import { counterIn } from "../../../src/sys/netstat.ts";
import { DriftLedger } from "../../../src/telemetry/drift-ledger.ts";
import { noMetrics, quiet, specOf, startDataplane } from "../../support/lab-dataplane.ts";
import { EBPF, IPTABLES_NFT, NFTABLES } from "../../support/lab-engines.ts";
import { Call, EchoServer, outcome } from "../../support/lab-peer.ts";
import { LabZtunnel } from "../../support/lab-ztunnel.ts";
import { type Host, inNetns, NetnsLab } from "../../support/netns-lab.ts";

const APP = 8080;
const SERVICE = 80;
const STRICT = "1";
const LOOSE = "2";

let lab: NetnsLab;
let ztunnel: LabZtunnel;
const servers: EchoServer[] = [];
beforeEach(async () => {
  lab = NetnsLab.create();
  ztunnel = await LabZtunnel.start(lab.pod.netns);
});
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
  await ztunnel.close();
  lab.close();
});

const serve = async (netns: HeldNetns, name: string, port: number, mark = 0) => {
  const marked = mark === 0 ? {} : { mark };
  servers.push(await EchoServer.start(netns, name, { family: 6, bind: { address: "::", port }, ...marked }));
};

/** Of every interface of a netns. */
function filter(netns: HeldNetns, value: string): void {
  for (const name of [
    "all",
    "default",
    ...native()
      .links(netns.fd)
      .map((link) => link.name),
  ]) {
    native().sysctlSet(netns.fd, `net/ipv4/conf/${name}/rp_filter`, value);
  }
}

const dropped = async (netns: HeldNetns) =>
  counterIn(await inNetns(netns, "cat", "/proc/net/netstat"), "IPReversePathFilter");

describe("reverse path filtering", () => {
  test.each([EBPF, NFTABLES, IPTABLES_NFT])("$name: strict everywhere, it drops nothing", async (engine) => {
    for (const { netns } of [lab.pod, lab.client]) filter(netns, STRICT);
    await serve(lab.pod.netns, "app", APP);
    await serve(lab.pod.netns, "marked", APP + 1, 0x77);
    await serve(lab.client.netns, "remote", SERVICE);
    const dataplane = await startDataplane(native(), engine);
    const config = { probeSources: "host", probeIpv4: PROBE_SNAT_IPV4, probeIpv6: PROBE_SNAT_IPV6 } as const;
    const exemption = new SnatExemption({
      ...{ binding: native(), logger: quiet, metrics: noMetrics, host: lab.client.netns },
      config: { ...config, awsBranchEni: false, procDir: "/proc" },
      drift: new DriftLedger(noMetrics),
    });
    try {
      await dataplane.capture(lab.pod.netns, specOf(lab));
      expect(await outcome(Call.open(lab.client.netns, 4, lab.pod.ipv4, APP))).toBe("app");
      expect(await outcome(Call.open(lab.pod.netns, 4, lab.client.ipv4, SERVICE))).toBe("remote");
      if (engine.reachesMarkedListeners) {
        expect(await outcome(Call.open(lab.client.netns, 4, lab.pod.ipv4, APP + 1))).toBe("marked");
      }
      const before = ztunnel.accepted.length;
      await exemption.start();
      await exemption.allow("uid", [lab.pod.ipv4]);
      const probe = await Call.open(lab.client.netns, 4, lab.pod.ipv4, APP);
      expect(await probe.greeting()).toMatchObject({ name: "app", remote: { address: PROBE_SNAT_IPV4 } });
      probe.close();
      expect(ztunnel.accepted).toHaveLength(before);
      expect([await dropped(lab.pod.netns), await dropped(lab.client.netns)]).toEqual([0, 0]);
    } finally {
      await exemption.stop();
      dataplane.close();
    }
  });

  test("a pod whose route to its callers is another interface loses their calls where it is strict", async () => {
    using other = createNetns();
    native().vethAdd(lab.pod.netns.fd, "net1", "peer1", other.fd);
    native().linkUp(lab.pod.netns.fd, "net1");
    native().linkUp(other.fd, "peer1");
    native().addressAdd(lab.pod.netns.fd, "net1", "10.99.0.2", 24);
    await inNetns(lab.pod.netns, "ip", "route", "add", `${NOBODY[4]}/32`, "via", "10.99.0.1", "dev", "net1");
    await inNetns(lab.client.netns, "ip", "route", "add", "default", "dev", "veth0");
    const dataplane = await startDataplane(native(), NFTABLES);
    const spec = specOf(lab, { ips: [lab.pod.ipv4], ipv6: false });
    await dataplane.capture(lab.pod.netns, spec);
    const prover = new PodProver({ binding: native(), host: lab.client.netns, probesFromHost: false });
    const inbound = async () =>
      (await prover.prove(lab.pod.netns, spec)).find(({ row, family }) => row === "inbound" && family === 4)?.result;
    filter(lab.pod.netns, LOOSE);
    expect(await inbound()).toBe("proved");
    expect(await dropped(lab.pod.netns)).toBe(0);
    filter(lab.pod.netns, STRICT);
    expect(await inbound()).toBe("failed");
    expect(await dropped(lab.pod.netns)).toBeGreaterThan(0);
    dataplane.close();
  });
});

test("of a pod with a larger MTU than the node's end the largest packets vanish, and no error tells", async () => {
  const dataplane = await startDataplane(native(), NFTABLES);
  await dataplane.capture(lab.pod.netns, specOf(lab));
  await inNetns(lab.client.netns, "ip", "link", "set", "veth0", "mtu", "1300");
  const bound = async (host: Host) => {
    const socket = createSocket("udp4");
    const fd = native().udpSocket(host.netns.fd, { family: 4, bind: { address: host.ipv4, port: 5353 } });
    await new Promise<void>((resolve) => socket.bind({ fd }, resolve));
    return socket;
  };
  const [pod, node] = [await bound(lab.pod), await bound(lab.client)];
  const sizes: number[] = [];
  const last = new Promise<void>((resolve) => {
    node.on("message", ({ length }) => {
      sizes.push(length);
      if (length === 2) resolve();
    });
  });
  const errors: Error[] = [];
  pod.on("error", (error) => errors.push(error));
  for (const size of [1200, 1400, 2]) {
    await new Promise((resolve) => pod.send(Buffer.alloc(size), 5353, lab.client.ipv4, resolve));
  }
  await last;
  // In the order in which they were sent: the one between is lost.
  expect(sizes).toEqual([1200, 2]);
  expect(errors).toEqual([]);
  for (const socket of [pod, node]) socket.close();
  dataplane.close();
});
