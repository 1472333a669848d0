// SPDX-License-Identifier: Apache-2.0
// What upstream's istio-cni has left on the node goes once ours does its work, and no probe notices.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { PROBE_SNAT_IPV4, PROBE_SNAT_IPV6 } from "../../../../src/core/constants.ts";
import type { NodeDataplane } from "../../../../src/dataplane/dataplane.ts";
import { NodeProbeExemption } from "../../../../src/dataplane/probe-exemption/exemption.ts";
import { SnatExemption } from "../../../../src/dataplane/probe-exemption/snat.ts";
import { UpstreamHost } from "../../../../src/dataplane/upstream/host.ts";
import { native } from "../../../../src/native/load.ts";
import { DriftLedger } from "../../../../src/telemetry/drift-ledger.ts";
import { type Fault, Faults } from "../../../support/faulty-binding.ts";
import { LabCgroups } from "../../../support/lab-bpf.ts";
import { noMetrics, quiet, specOf, startDataplane } from "../../../support/lab-dataplane.ts";
import { Call } from "../../../support/lab-peer.ts";
import { LabPrograms } from "../../../support/lab-programs.ts";
import { TrafficLab } from "../../../support/lab-traffic.ts";
import { enrolByUpstream, UPSTREAM_FORMS, type UpstreamForm } from "../../../support/lab-upstream.ts";
import { inNetns, ipOf } from "../../../support/netns-lab.ts";
import { LogRecorder } from "../../../support/recorder.ts";

let programs: LabPrograms;
let dataplane: NodeDataplane;
let traffic: TrafficLab;
let exemption: NodeProbeExemption;
let log: LogRecorder;

/** The lab's client is the node. */
const node = () => traffic.lab.client.netns;
const onNode = (command: string) => inNetns(node(), "sh", "-c", command);

beforeAll(async () => {
  programs = await LabPrograms.compile(["lab-ipset"]);
  dataplane = await startDataplane();
});
afterAll(() => {
  programs[Symbol.dispose]();
  dataplane.close();
});
beforeEach(async () => {
  traffic = await TrafficLab.create();
  // Whoever asks for a neighbour with a translated packet in hand needs an address for that.
  native().addressAdd(node().fd, "veth0", "fe80::1", 64);
  log = new LogRecorder();
  const config = { probeSources: "host", probeIpv4: PROBE_SNAT_IPV4, probeIpv6: PROBE_SNAT_IPV6 } as const;
  const drift = new DriftLedger(noMetrics);
  exemption = new NodeProbeExemption({
    worn: new SnatExemption({
      ...{ binding: native(), logger: quiet, drift, host: node() },
      config: { ...config, awsBranchEni: false, procDir: "/proc" },
    }),
    announced: () => undefined,
    upstream: new UpstreamHost(native(), node(), log),
    kubeletOnly: false,
    drift,
    logger: log,
  });
});
afterEach(async () => {
  await exemption.stop();
  await traffic.close();
});

/** As upstream's agent prepares the node, and enrols the lab's pod. */
async function prepareByUpstream(form: UpstreamForm): Promise<void> {
  await enrolByUpstream(traffic.lab.pod.netns, form);
  await prepareNode(form);
}

async function prepareNode(form: UpstreamForm): Promise<void> {
  const { pod } = traffic.lab;
  const sets = ([4, 6] as const).map((family) => ({
    family,
    set: `istio-inpod-probes-v${family}`,
    ip: ipOf(pod, family),
  }));
  if (form === "nftables") {
    const table = "inet istio-ambient-nat";
    const lines = sets.flatMap(({ family, set, ip }) => [
      `add set ${table} ${set} { type ipv${family}_addr; }`,
      `add element ${table} ${set} { ${ip} }`,
      `add rule ${table} postrouting meta l4proto tcp skuid 0 ${family === 4 ? "ip" : "ip6"} daddr @${set} counter snat to ${family === 4 ? PROBE_SNAT_IPV4 : PROBE_SNAT_IPV6}`,
    ]);
    const chain = "add chain inet istio-ambient-nat postrouting { type nat hook postrouting priority 100; }";
    await onNode(`nft -f - <<'END'\n${[`add table ${table}`, chain, ...lines].join("\n")}\nEND`);
    return;
  }
  for (const { family, set, ip } of sets) {
    await programs.run(node(), LabCgroups.root, ["lab-ipset", set, ip]);
    const iptables = `${family === 4 ? "iptables" : "ip6tables"}-${form === "iptables-nft" ? "nft" : "legacy"} -t nat`;
    const snat = `-j SNAT --to-source ${family === 4 ? PROBE_SNAT_IPV4 : PROBE_SNAT_IPV6}`;
    await onNode(
      `${iptables} -N ISTIO_POSTRT; ${iptables} -I POSTROUTING 1 -j ISTIO_POSTRT; ` +
        `${iptables} -A ISTIO_POSTRT -m owner --socket-exists -p tcp -m set --match-set ${set} dst ${snat}`,
    );
  }
}

/** The application's port, from a socket of the node: the application tells whom it saw. */
async function probe(family: 4 | 6): Promise<string> {
  const call = await Call.open(node(), family, ipOf(traffic.lab.pod, family), 8080);
  const { name, remote } = await call.greeting();
  call.close();
  return `${name} ${remote.address}`;
}

async function expectProbes(): Promise<void> {
  expect(await probe(4)).toBe(`app ${PROBE_SNAT_IPV4}`);
  expect(await probe(6)).toBe(`app ${PROBE_SNAT_IPV6}`);
}

/** Gone without a trace; iptables-nft keeps its own chains. */
async function expectNothingOfUpstream(): Promise<void> {
  const all = await onNode(
    "for save in iptables-legacy-save ip6tables-legacy-save iptables-nft-save ip6tables-nft-save; do $save; done; nft list ruleset",
  );
  expect(all).not.toMatch(/istio/i);
  for (const family of [4, 6]) expect(native().ipsetDestroy(node().fd, `istio-inpod-probes-v${family}`)).toBe(false);
}

describe.each(UPSTREAM_FORMS)("%s", (form) => {
  test("is succeeded between two probes", async () => {
    const { pod } = traffic.lab;
    const spec = specOf(traffic.lab);
    await prepareByUpstream(form);
    await expectProbes();
    let probing = true;
    let probes = 0;
    const prober = (async () => {
      for (; probing; probes++) await expectProbes();
    })();
    await exemption.start();
    await exemption.reconcile(
      new Map([[spec.uid, { uid: spec.uid, ips: spec.ips, engine: "nftables", netns: pod.netns }]]),
    );
    await expectNothingOfUpstream();
    await dataplane.capture(pod.netns, spec, true);
    probing = false;
    await prober;
    await expectProbes();
    expect(probes).toBeGreaterThan(0);
    expect(traffic.accepted).toBe(0);
    expect(log.lines.map(({ message }) => message)).toEqual(["istio-cni's rules and sets of the node are removed"]);
    await dataplane.release(pod.netns);
  });
});

test.each<{ form: UpstreamForm; fault: Fault }>([
  { form: "iptables-legacy", fault: "refused" },
  { form: "iptables-nft", fault: "killed" },
  { form: "nftables", fault: "refused" },
])("$form: whatever write is $fault, the next attempt leaves nothing of it", async ({ form, fault }) => {
  const faults = new Faults();
  const faulty = new UpstreamHost(faults.binding(), node(), log);
  const next = new UpstreamHost(native(), node(), log);
  for (let writes = 0, unmade: string | undefined = ""; unmade !== undefined; writes++) {
    await prepareNode(form);
    let failure: unknown;
    unmade = await faults.during(fault, writes, () => faulty.remove().catch((error: unknown) => (failure = error)));
    // What is left is there to be found again, unless that is told.
    if (failure === undefined) expect(next.present).toBe(false);
    else if (next.present) await next.remove();
    await expectNothingOfUpstream();
  }
});

test("what was left half removed, twice put in or jumped to from elsewhere goes as well, and others' things stay", async () => {
  await onNode(
    "iptables-nft -t nat -A POSTROUTING -s 10.9.9.9 -j MASQUERADE; iptables-legacy -t nat -A POSTROUTING -s 10.9.9.9 -j MASQUERADE; nft add table inet own",
  );
  const rules = () => onNode("iptables-nft-save -t nat; iptables-legacy-save -t nat; nft list table inet own");
  const bare = (text: string) => text.replaceAll(/^[#:].*\n/gm, "");
  const own = bare(await rules());
  await prepareByUpstream("iptables-nft");
  await onNode("iptables-nft -t nat -I POSTROUTING 1 -j ISTIO_POSTRT; ip6tables-nft -t nat -F ISTIO_POSTRT");
  await onNode("iptables-legacy -t nat -N ISTIO_POSTRT");
  await exemption.start();
  await exemption.reconcile(new Map());
  expect(bare(await rules())).toBe(own);
  await expectNothingOfUpstream();
});

test("a set that a rule of somebody else's uses stays, and that is told", async () => {
  await prepareByUpstream("iptables-nft");
  await onNode("iptables-nft -A OUTPUT -m set --match-set istio-inpod-probes-v4 dst -j ACCEPT");
  await exemption.start();
  await exemption.reconcile(new Map());
  expect(log.lines.filter(({ level }) => level === "warn").map(({ fields }) => fields.set)).toEqual([
    "istio-inpod-probes-v4",
  ]);
  await onNode("iptables-nft -F OUTPUT");
  expect(native().ipsetDestroy(node().fd, "istio-inpod-probes-v4")).toBe(true);
  await expectNothingOfUpstream();
});
