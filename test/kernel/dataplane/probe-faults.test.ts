// SPDX-License-Identifier: Apache-2.0
// An agent is killed between any two of its writes to the node's netns, or the kernel refuses any one of them: a
// probe reaches its captured pod or the agent says that it may not, and nothing is left once nobody needs it.
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { PROBE_SNAT_IPV4, PROBE_SNAT_IPV6 } from "../../../src/core/constants.ts";
import type { NodeDataplane } from "../../../src/dataplane/dataplane.ts";
import { NodeProbeExemption } from "../../../src/dataplane/probe-exemption/exemption.ts";
import { SnatExemption } from "../../../src/dataplane/probe-exemption/snat.ts";
import type { NativeBinding } from "../../../src/native/binding.ts";
import { native } from "../../../src/native/load.ts";
import { DriftLedger } from "../../../src/telemetry/drift-ledger.ts";
import { type Fault, Faults } from "../../support/faulty-binding.ts";
import { noMetrics, quiet, specOf, startDataplane } from "../../support/lab-dataplane.ts";
import { Call, EchoServer } from "../../support/lab-peer.ts";
import { LabZtunnel } from "../../support/lab-ztunnel.ts";
import { inNetns, ipOf, NetnsLab } from "../../support/netns-lab.ts";

/** The lab's client is the node. */
let lab: NetnsLab;
let app: EchoServer;
let ztunnel: LabZtunnel;
let dataplane: NodeDataplane;
const faults = new Faults();
const started: NodeProbeExemption[] = [];

beforeAll(async () => {
  lab = NetnsLab.create();
  app = await EchoServer.start(lab.pod.netns, "app", { family: 6, bind: { address: "::", port: 8080 } });
  ztunnel = await LabZtunnel.start(lab.pod.netns);
  dataplane = await startDataplane();
  await dataplane.capture(lab.pod.netns, specOf(lab));
});
afterAll(async () => {
  await app.close();
  await ztunnel.close();
  dataplane.close();
  lab.close();
});
afterEach(async () => {
  for (const exemption of started.splice(0)) await exemption.stop();
});

function make(binding: NativeBinding): NodeProbeExemption {
  const config = { probeSources: "host", probeIpv4: PROBE_SNAT_IPV4, probeIpv6: PROBE_SNAT_IPV6 } as const;
  const common = { logger: quiet, drift: new DriftLedger(noMetrics) };
  const host = lab.client.netns;
  const exemption = new NodeProbeExemption({
    ...common,
    worn: new SnatExemption({ ...common, binding, host, config: { ...config, awsBranchEni: false, procDir: "/proc" } }),
    announced: () => undefined,
    kubeletOnly: false,
  });
  started.push(exemption);
  return exemption;
}

const pod = () => {
  const { uid, ips } = specOf(lab);
  return { uid, ips, engine: "nftables" as const, netns: lab.pod.netns };
};
const ruleset = () => inNetns(lab.client.netns, "nft", "list", "ruleset");

/** The addresses that the application sees of a probe of each family, and which way each has come. */
async function probes(): Promise<string[]> {
  const seen: string[] = [];
  for (const family of [4, 6] as const) {
    const before = ztunnel.accepted.length;
    const call = await Call.open(lab.client.netns, family, ipOf(lab.pod, family), 8080);
    const { address } = (await call.greeting()).remote;
    call.close();
    seen.push(ztunnel.accepted.length > before ? `${address} through ztunnel` : address);
  }
  return seen;
}
const WORN = [PROBE_SNAT_IPV4, PROBE_SNAT_IPV6];
const own = () => [lab.client.ipv4, lab.client.ipv6].map((ip) => `${ip} through ztunnel`);

describe.each<Fault>(["killed", "refused"])("%s", (fault) => {
  interface Course {
    /** By an agent that has started, or starts. */
    readonly change: (agent: NodeProbeExemption) => Promise<unknown>;
    readonly seen: () => readonly string[];
  }

  /** `change` by an agent that starts, until it needs no more writes; the next attempt is the same agent's if that lives. */
  async function everywhere(given: () => Promise<unknown>, { change, seen }: Course): Promise<void> {
    for (let writes = 0; ; writes++) {
      await given();
      const agent = make(faults.binding());
      let failure: unknown;
      const unmade = await faults.during(fault, writes, async () => {
        try {
          await agent.start();
          await change(agent);
        } catch (error) {
          failure = error;
        }
        // It looks no more.
        if (fault === "killed") await agent.stop().catch(() => undefined);
      });
      if (failure === undefined && fault === "refused") expect(await probes()).toEqual(seen());
      const next = fault === "refused" ? agent : make(native());
      await next.start();
      await change(next);
      expect(await probes()).toEqual(seen());
      for (const one of started.splice(0)) await one.stop();
      if (unmade !== undefined) continue;
      expect(writes).toBeGreaterThan(0);
      return;
    }
  }

  const clean = () => make(native()).bequeath([]);
  const allowed = async () => {
    await clean();
    const agent = make(native());
    await agent.start();
    await agent.allow(pod());
    await agent.stop();
    expect(await probes()).toEqual(WORN);
  };

  test("a pod's probes wear the probe address", async () => {
    await everywhere(clean, { change: (agent) => agent.allow(pod()), seen: () => WORN });
  });

  test("and no more", async () => {
    const { uid, ips } = pod();
    await everywhere(allowed, { change: (agent) => agent.revoke(uid, ips), seen: own });
  });

  test("after a start that finds a pod of before", async () => {
    const owners = new Map([[pod().uid, pod()]]);
    await everywhere(
      async () => {
        await allowed();
        await inNetns(lab.client.netns, "nft", "add element inet ambient-cni-probes pods-v4 { 10.9.9.9 }");
      },
      { change: (agent) => agent.reconcile(owners), seen: () => WORN },
    );
  });

  test("nothing is left", async () => {
    await clean();
    const before = await ruleset();
    await everywhere(allowed, { change: (agent) => agent.bequeath([]), seen: own });
    expect(await ruleset()).toBe(before);
  });
});
