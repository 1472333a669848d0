// SPDX-License-Identifier: Apache-2.0
// Every check is provoked, and is content with a node where all is well.
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { readBranchAddresses } from "../../../src/cli/check/branch-rules.ts";
import {
  type Check,
  type CheckContext,
  type CheckVerdict,
  ok,
  runCheck,
  runChecks,
} from "../../../src/cli/check/check.ts";
import { CHECKS } from "../../../src/cli/check/checks.ts";
import { checksDocument } from "../../../src/cli/check/document.ts";
import { parseConfig } from "../../../src/core/config/parse.ts";
import { AgentError } from "../../../src/core/errors.ts";
import type { NetworkPolicy } from "../../../src/core/network-policy.ts";
import type { DocumentName, Documents } from "../../../src/core/report/documents.ts";
import type { Link, Route, Rule } from "../../../src/native/binding.ts";
import { native } from "../../../src/native/load.ts";
import { NodeResidents } from "../../../src/netns/residents.ts";
import { DebugServer } from "../../../src/telemetry/debug-server.ts";
import { CONNECT, type FactValues, factsOf, GOOD_FACTS, HOUR, NOW, nodeNetwork } from "../../fakes/facts.ts";
import { silent } from "../../fakes/parts.ts";
import { CONFIG, ENGINES, FINE, INSPECT, PODS, PROOFS, podReport, VERSIONS } from "../../fixtures/reports.ts";
import { cli, withAgent } from "../../support/cli-env.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

const LIST = { cniVersion: "0.4.0", name: "net" };
const BRIDGE = { type: "bridge" };
const OURS = { type: "istio-cni" };

let dir: ScratchDir;
beforeEach(() => {
  dir = new ScratchDir();
  for (const name of ["net.d", "bin", "run", "proc"]) mkdirSync(dir.file(name));
  writeFileSync(dir.file("bin/istio-cni"), "#!", { mode: 0o755 });
  conf("10-net.conflist", [BRIDGE, OURS]);
});
afterEach(() => dir[Symbol.dispose]());

const conf = (name: string, plugins: readonly object[]) =>
  writeFileSync(join(dir.file("net.d"), name), JSON.stringify({ ...LIST, plugins }));

type Changes = Partial<Documents> & {
  readonly kernelPods?: Documents["pods"]["pods"];
  readonly environment?: Readonly<Record<string, string>>;
  readonly facts?: { readonly [Name in keyof FactValues]?: FactValues[Name] | Error };
};

const ipv6 = (value: string): Documents["config"] => ({
  ...CONFIG,
  settings: [{ setting: "AMBIENT_IPV6", value, origin: "default", status: "honoured" }],
});

const GOOD = podReport("web-7f4c");
const SIDECAR = podReport("web-7f4c", { mesh: "sidecar", engine: null, ztunnel: null });
const FACTS = INSPECT.facts.filter(({ ok }) => ok === true);

function contextOf({ kernelPods, environment = {}, facts = {}, ...changes }: Changes): CheckContext {
  const { config } = parseConfig(
    {
      NODE_NAME: "worker-3",
      MOUNTED_CNI_NET_DIR: dir.file("net.d"),
      AMBIENT_CNI_BIN_DIR: dir.file("bin"),
      CNI_AGENT_RUN_DIR: dir.file("run"),
      ...environment,
    },
    [],
  );
  const documents: Partial<Documents> = {
    status: { ...FINE, ztunnelTrouble: null, ztunnelStuck: [] },
    pods: { ...PODS, pods: [GOOD] },
    engines: { ...ENGINES, engines: ENGINES.engines.map((one) => ({ ...one, works: true, losses: [] })) },
    config: ipv6("true"),
    inspect: { ...INSPECT, facts: FACTS },
    verify: { ...PROOFS, proofs: PROOFS.proofs.map((one) => ({ ...one, result: "proved" })) },
    ...changes,
  };
  const read = async <Name extends DocumentName>(name: Name) => documents[name] as Documents[Name];
  return {
    view: {
      config: { ...config, procDir: "/proc" },
      environment,
      foundOut: [],
      binding: native(),
      residents: new NodeResidents("/proc"),
      head: () => ({
        schemaVersion: 1,
        source: { from: "kernel", note: "" },
        takenAt: "2026-01-01T12:00:00.000Z",
        node: null,
      }),
    },
    facts: factsOf({
      ...GOOD_FACTS,
      network: nodeNetwork({ uid: GOOD.uid }),
      policies: { policies: [], pods: [LABELLED], more: false },
      ...facts,
    }),
    read,
    kernelPods: async () => kernelPods ?? [{ ...GOOD, mesh: "captured", ztunnel: "listening" }],
    inspect: () => read("inspect"),
    verify: async () => ({ ...(await read("verify")), dropped: 0 }),
  };
}

async function verdictOf(code: string, changes: Changes = {}): Promise<readonly [CheckVerdict, string]> {
  const check = CHECKS.find((one) => one.code === code);
  if (check === undefined) throw new Error(`no check ${code}`);
  const { verdict, evidence, fix } = await runCheck(check, contextOf(changes));
  expect(fix === null, "what is wrong has a remedy").toBe(verdict === "ok" || verdict === "skip");
  return [verdict, evidence];
}

const engines = (changes: Partial<(typeof ENGINES)["engines"][number]>): Changes => ({
  engines: { ...ENGINES, engines: ENGINES.engines.map((one) => ({ ...one, works: true, losses: [], ...changes })) },
});
const pods = (...list: Documents["pods"]["pods"]): Changes => ({ pods: { ...PODS, pods: list } });
const facts = (changes: NonNullable<Changes["facts"]>): Changes => ({ facts: changes });
const network = (...changes: Parameters<typeof nodeNetwork>) => facts({ network: nodeNetwork(...changes) });
const clusterNetwork = (changes: Partial<FactValues["clusterNetwork"]>) =>
  facts({ clusterNetwork: { ...GOOD_FACTS.clusterNetwork, ...changes } });
/** Nothing is captured that would prove anything. */
const unproved: Changes = { pods: { ...PODS, pods: [] } };
const proofs = (row: string, result: "failed" | "skipped", evidence: string): Changes => ({
  verify: {
    ...PROOFS,
    proofs: PROOFS.proofs.map((one) => (one.row === row ? { ...one, result, evidence } : { ...one, result: "proved" })),
  },
});
const CILIUM = { bpfMasquerade: false, masquerade: true, legacyRouting: false, socketLbHostOnly: false };
const ciliumHas = (changes: Partial<typeof CILIUM>) =>
  facts({
    clusterNetwork: { ...GOOD_FACTS.clusterNetwork, types: ["cilium-cni"] },
    cilium: { ...CILIUM, ...changes },
  });
const BALANCER = { id: 12, name: "cil_sock4_conne" };
const POLICY: NetworkPolicy = {
  namespace: "shop",
  name: "only-8080",
  podSelector: { requirements: [{ key: "app", operator: "In", values: ["web"] }] },
  rules: { ingress: [{ ports: [{ protocol: "TCP", port: 8080, endPort: undefined }] }], egress: undefined },
};
const LABELLED = { uid: GOOD.uid, namespace: "shop", labels: { app: "web" } };

const WAITING = podReport("cart", { mesh: "pending", engine: null, ztunnel: null });
const awsProbes = (value: string): Documents["config"] => ({
  ...CONFIG,
  settings: [{ setting: "AMBIENT_ENABLE_AWS_BRANCH_ENI_PROBE", value, origin: "default", status: "honoured" }],
});
/** Strict mode, with as many addresses on branch ENIs: whether each has its rules. */
const aws = (rules: readonly boolean[]) =>
  facts({
    clusterNetwork: { ...GOOD_FACTS.clusterNetwork, podSecurityGroups: "strict", earlyDemux: false },
    branchAddresses: rules.map((ruled, index) => ({ pod: "shop/web-7f4c", ip: `10.1.2.${index}`, ruled })),
  });
const KERNEL = { from: "kernel", note: "agent unreachable" } as const;
/** On the node itself, with what this process's environment says. */
const agentless: Changes = {
  config: { ...awsProbes("true"), source: KERNEL },
  environment: { AMBIENT_CNI_HOST_ROOT: "/" },
};
const kernelAlone = (...list: Documents["pods"]["pods"]): Changes => ({
  pods: { ...PODS, source: KERNEL, pods: list },
});
const unreached = (ok: boolean | null): Documents["inspect"] => ({
  ...INSPECT,
  facts: [{ name: "netns", ok, text: "/proc can't be read" }],
});
const MACHINE = {
  serviceAccount: "vm",
  labels: { "kubevirt.io": "virt-launcher" },
  annotations: {},
  namespaceLabels: {},
};
const sandboxes: Changes = {
  verify: {
    ...PROOFS,
    proofs: PROOFS.proofs.map((one) => ({
      ...one,
      result: "skipped",
      evidence: "its runtime handles packets itself",
    })),
  },
};

/** What provokes each code; run before the check looks. */
const PROVOKED: Readonly<Record<string, () => readonly [CheckVerdict, RegExp, Changes?]>> = {
  "AMB-101": () => ["fail", /ebpf: no bpffs; .*iptables: no bpffs/, engines({ works: false, reason: "no bpffs" })],
  "AMB-102": () => ["warn", /no bpffs/, engines({ works: false, reason: "no bpffs" })],
  "AMB-103": () => ["warn", /sysctls are denied/, engines({ losses: ["sysctls are denied"] })],
  "AMB-104": () => [
    "fail",
    /^the node is 150 s behind; its certificate is not trusted: CERT_NOT_YET_VALID$/,
    facts({ serverTime: { aheadMs: 150_000, uncertaintyMs: 510, untrusted: "CERT_NOT_YET_VALID" } }),
  ],
  "AMB-105": () => ["warn", /not synchronised/, facts({ clock: { synchronised: false, maxErrorMs: 16_000 } })],
  "AMB-106": () => [
    "warn",
    /^cil_sock4_conne \(id 12\) in shop\/web-7f4c \(ebpf\)$/,
    network({ connect: [BALANCER, CONNECT] }),
  ],
  "AMB-107": () => [
    "fail",
    /^260000 of 262144 entries \(99%\)$/,
    facts({ conntrack: { count: 260_000, max: 262_144 } }),
  ],
  "AMB-108": () => ["warn", /^shop\/web-7f4c eth0: 7 packets so far$/, network({ rpDrops: 7 })],
  "AMB-201": () => {
    chmodSync(dir.file("bin/istio-cni"), 0o644);
    return ["fail", /mode 644: it can't be run/];
  },
  "AMB-202": () => {
    conf("10-net.conflist", [BRIDGE]);
    return ["fail", /10-net.conflist holds bridge/];
  },
  "AMB-203": () => {
    conf("10-net.conflist.cilium_bak", [BRIDGE, OURS]);
    return ["warn", /10-net.conflist.cilium_bak/];
  },
  "AMB-204": () => {
    conf("10-net.conflist", [BRIDGE, OURS, { type: "portmap" }]);
    return ["warn", /after it come portmap/];
  },
  "AMB-205": () => {
    writeFileSync(dir.file("net.d/05-broken.conflist"), "{");
    return ["warn", /05-broken.conflist: /];
  },
  "AMB-206": () => {
    writeFileSync(dir.file("run/istio-cni-kubeconfig"), "token");
    return ["warn", /istio-cni-kubeconfig$/];
  },
  "AMB-207": () => [
    "warn",
    /^bpf.masquerade=true, bpf.hostLegacyRouting=false$/,
    { ...ciliumHas({ bpfMasquerade: true }), ...unproved },
  ],
  "AMB-208": () => ["warn", /^shared gateway mode$/, { ...clusterNetwork({ ovnGateway: "shared" }), ...unproved }],
  "AMB-209": () => [
    "warn",
    /^enforcing mode strict, and net.ipv4.tcp_early_demux is on/,
    clusterNetwork({ podSecurityGroups: "strict" }),
  ],
  "AMB-301": () => ["fail", /^none is connected$/, { status: { ...FINE, ztunnels: [] } }],
  "AMB-302": () => [
    "warn",
    /^hello_version: the peer speaks ZDS version 2, 40 s ago$/,
    {
      status: {
        ...FINE,
        ztunnelTrouble: { reason: "hello_version", detail: "the peer speaks ZDS version 2", secondsAgo: 40 },
      },
    },
  ],
  "AMB-303": () => [
    "fail",
    /^its process 4711 is stopped, for 9 s; at port 15001 in shop\/web 2 connections wait, and none is seen accepted, for 5 s$/,
    {
      status: {
        ...FINE,
        ztunnelStuck: [
          { sign: "process", detail: "its process 4711 is stopped", seconds: 9 },
          {
            sign: "listener",
            detail: "at port 15001 in shop/web 2 connections wait, and none is seen accepted",
            seconds: 5,
          },
        ],
      },
    },
  ],
  "AMB-401": () => [
    "fail",
    /^shop\/cart: SYSCTL_DENIED$/,
    pods(GOOD, podReport("cart", { mesh: "failing", reason: "SYSCTL_DENIED" })),
  ],
  "AMB-402": () => ["fail", /^shop\/web-7f4c$/, pods({ ...GOOD, mesh: "none" })],
  "AMB-403": () => ["fail", /^shop\/web-7f4c$/, { kernelPods: [{ ...GOOD, mesh: "captured", ztunnel: null }] }],
  "AMB-404": () => ["warn", /^shop\/web-7f4c: 3$/, pods({ ...GOOD, existing: 3 })],
  "AMB-405": () => ["fail", /^shop\/web-7f4c$/, { config: ipv6("false") }],
  "AMB-406": () => ["fail", /inbound IPv4: .*past ztunnel/, { verify: PROOFS }],
  "AMB-407": () => ["warn", /^shop\/web-7f4c: ip nat, ip6 nat$/, facts({ foreignRules: ["ip nat", "ip6 nat"] })],
  "AMB-408": () => ["warn", /^shop\/web-7f4c: a virtual machine$/, pods({ ...GOOD, machine: "bypassing" })],
  "AMB-409": () => [
    "fail",
    /^shop\/web-7f4c: a rule was changed in place$/,
    {
      ...pods(SIDECAR),
      inspect: { ...INSPECT, facts: [{ name: "redirection", ok: false, text: "a rule was changed in place" }] },
    },
  ],
  "AMB-410": () => ["fail", /inbound IPv4: .*past ztunnel/, { ...pods(SIDECAR), verify: PROOFS }],
  "AMB-411": () => ["fail", /^shop\/web-7f4c eth0 has 1500, veth7f4c 1450$/, network({ mtu: 1500 })],
  "AMB-412": () => ["fail", /^shop\/web-7f4c \(ebpf\) IPv4: lost/, proofs("probe", "failed", "lost")],
  "AMB-413": () => [
    "warn",
    /^shop\/web-7f4c: ingress of only-8080$/,
    facts({ policies: { policies: [POLICY], pods: [LABELLED], more: false } }),
  ],
  "AMB-420": () => [
    "warn",
    /^these are sidecar pods: shop\/web-7f4c$/,
    pods(GOOD, { ...SIDECAR, reason: "sidecar-labelled" }),
  ],
  "AMB-601": () => [
    "fail",
    /ECONNREFUSED/,
    { status: { ...FINE, source: { from: "kernel", note: "agent unreachable: ECONNREFUSED" } } },
  ],
  "AMB-602": () => {
    const kubernetes = (FINE.kubernetes ?? []).map((one) => ({ ...one, watchAgeSeconds: null }));
    return ["warn", /no live watch of pods and namespaces/, { status: { ...FINE, kubernetes } }];
  },
  "AMB-603": () => ["warn", /^2 of 12 belong to no process/, facts({ pinned: { pods: 12, stale: 2 } })],
  "AMB-604": () => [
    "fail",
    /^it ended 3 h ago$/,
    facts({ credentials: { ...GOOD_FACTS.credentials, token: { expiresAt: NOW - 3 * HOUR, renewBy: undefined } } }),
  ],
  "AMB-605": () => [
    "warn",
    /^it ends in 10 days$/,
    facts({ credentials: { ...GOOD_FACTS.credentials, authorityEnd: NOW + 240 * HOUR } }),
  ],
};

describe("every check", () => {
  test("has a test that provokes it", () => {
    expect(Object.keys(PROVOKED).sort()).toEqual(CHECKS.map(({ code }) => code).sort());
  });

  test.each(Object.keys(PROVOKED))("%s is provoked, and content where all is well", async (code) => {
    expect((await verdictOf(code))[0], code).toBe("ok");
    const [verdict, evidence, changes = {}] = PROVOKED[code]?.() ?? ["ok", /./];
    const found = await verdictOf(code, changes);
    expect(found).toEqual([verdict, expect.stringMatching(evidence)]);
  });

  test("has a code of its own", () => {
    const codes = CHECKS.map(({ code }) => code);
    expect(new Set(codes).size).toBe(codes.length);
    for (const code of codes) expect(code).toMatch(/^AMB-\d{3}$/);
  });
});

describe("what can't be seen is not known", () => {
  const hidden = new Error("EACCES: permission denied");
  test.each([
    ["AMB-104", facts({ serverTime: hidden }), /EACCES/],
    ["AMB-105", facts({ clock: hidden }), /EACCES/],
    ["AMB-106", facts({ podsPrograms: hidden }), /EACCES/],
    ["AMB-106", network({ connect: undefined }), /the cgroup of shop\/web-7f4c was not found/],
    ["AMB-107", facts({ conntrack: hidden }), /EACCES/],
    ["AMB-108", network({ rpDrops: undefined }), /does not count/],
    ["AMB-207", { ...ciliumHas({}), ...unproved, ...facts({ ...ciliumHas({}).facts, cilium: hidden }) }, /EACCES/],
    ["AMB-208", { ...clusterNetwork({ ovnGateway: "unknown" }), ...unproved }, /does not say/],
    ["AMB-209", facts({ clusterNetwork: hidden }), /EACCES/],
    ["AMB-209", { ...aws([]), ...agentless }, /^enforcing mode strict; .* only the agent knows$/],
    ["AMB-302", { status: FINE }, /only the agent/],
    ["AMB-303", { status: FINE }, /only the agent/],
    ["AMB-406", sandboxes, /^shop\/web-7f4c: its runtime handles packets itself$/],
    ["AMB-407", { inspect: unreached(null) }, /^shop\/web-7f4c: \/proc can't be read$/],
    ["AMB-409", { ...pods(SIDECAR), inspect: unreached(null) }, /^shop\/web-7f4c: \/proc can't be read$/],
    ["AMB-409", { ...pods(SIDECAR), inspect: unreached(false) }, /^shop\/web-7f4c: \/proc can't be read$/],
    ["AMB-410", { ...pods(SIDECAR), ...sandboxes }, /^shop\/web-7f4c: its runtime handles packets itself$/],
    ["AMB-410", kernelAlone({ ...SIDECAR, phase: null }), /^only the agent/],
    ["AMB-411", network({}, { uplink: undefined }), /no default route/],
    ["AMB-412", proofs("probe", "skipped", "only kubelet's own"), /only kubelet's own/],
    ["AMB-413", facts({ policies: new AgentError("KUBE_FORBIDDEN", "403") }), /may not list NetworkPolicies/],
    ["AMB-603", facts({ pinned: "no bpffs" }), /no bpffs/],
    ["AMB-604", facts({ credentials: hidden }), /EACCES/],
  ] as const)("%s", async (code, changes, evidence) => {
    expect(await verdictOf(code, changes)).toEqual(["skip", expect.stringMatching(evidence)]);
  });
});

describe("more of what is judged", () => {
  const proved = proofs("none", "failed", "");
  const egress = { ingress: undefined, egress: POLICY.rules.ingress };
  const policies = (...list: readonly NetworkPolicy[]) =>
    facts({ policies: { policies: list, pods: [LABELLED], more: false } });
  const rulesOf = (
    ...ports: readonly { readonly port?: number; readonly endPort?: number; readonly protocol?: string }[]
  ) => ({
    ingress: [{ ports: ports.map(({ port, endPort, protocol = "TCP" }) => ({ protocol, port, endPort })) }],
    egress: undefined,
  });
  test.each([
    [
      "a clock less than two minutes behind",
      "AMB-104",
      facts({ serverTime: { aheadMs: 90_000, uncertaintyMs: 500, untrusted: undefined } }),
      "warn",
    ],
    [
      "an hour ahead",
      "AMB-104",
      facts({ serverTime: { aheadMs: -HOUR, uncertaintyMs: 500, untrusted: undefined } }),
      "warn",
    ],
    [
      "13 hours ahead",
      "AMB-104",
      facts({ serverTime: { aheadMs: -13 * HOUR, uncertaintyMs: 500, untrusted: undefined } }),
      "fail",
    ],
    [
      "a slow answer",
      "AMB-104",
      facts({ serverTime: { aheadMs: 11_000, uncertaintyMs: 2000, untrusted: undefined } }),
      "ok",
    ],
    ["a balancer after ours", "AMB-106", network({ connect: [CONNECT, BALANCER] }), "ok"],
    [
      "after ours, and the pod has rules",
      "AMB-106",
      network({ engine: "nftables", connect: [CONNECT, BALANCER] }),
      "warn",
    ],
    [
      "a balancer that leaves pods alone",
      "AMB-106",
      facts({ network: nodeNetwork({ connect: [BALANCER] }), cilium: { ...CILIUM, socketLbHostOnly: true } }),
      "ok",
    ],
    [
      "further out, before there is a pod",
      "AMB-106",
      facts({
        network: nodeNetwork({}, { pods: [] }),
        podsPrograms: { cgroup: "/c", connect: [BALANCER], attachedHere: 0 },
      }),
      "ok",
    ],
    [
      "at the pods' cgroup, before there is a pod",
      "AMB-106",
      facts({
        network: nodeNetwork({}, { pods: [] }),
        podsPrograms: { cgroup: "/c", connect: [BALANCER], attachedHere: 1 },
      }),
      "warn",
    ],
    ["no conntrack", "AMB-107", facts({ conntrack: undefined }), "ok"],
    ["85% of conntrack", "AMB-107", facts({ conntrack: { count: 85, max: 100 } }), "warn"],
    ["Cilium, and a probe that is proved", "AMB-207", { ...ciliumHas({ bpfMasquerade: true }), ...proved }, "ok"],
    ["Cilium, and a probe that is lost", "AMB-207", { ...ciliumHas({}), ...proofs("probe", "failed", "lost") }, "fail"],
    [
      "Cilium without masquerading, with host routing",
      "AMB-207",
      { ...ciliumHas({ masquerade: false }), ...unproved },
      "warn",
    ],
    ["Cilium with iptables", "AMB-207", { ...ciliumHas({}), ...unproved }, "ok"],
    ["OVN-Kubernetes' local gateway", "AMB-208", { ...clusterNetwork({ ovnGateway: "local" }), ...unproved }, "ok"],
    ["AWS without early demux", "AMB-209", aws([]), "ok"],
    ["AWS's rules are there, whoever can be asked", "AMB-209", { ...aws([true, true]), ...agentless }, "ok"],
    ["AWS's rules are not there", "AMB-209", aws([true, false]), "warn"],
    ["AWS's rules are not wanted", "AMB-209", { ...aws([]), config: awsProbes("false") }, "warn"],
    ["a pod that waits for ztunnel", "AMB-401", pods(GOOD, WAITING), "fail"],
    ["one that waits, and is captured", "AMB-401", pods(GOOD, { ...WAITING, engine: "ebpf" }), "ok"],
    ["one that has not started", "AMB-401", pods(GOOD, { ...WAITING, phase: "Pending" }), "ok"],
    ["one whose sandbox has gone", "AMB-401", pods(GOOD, { ...WAITING, reason: "SANDBOX_GONE" }), "ok"],
    ["AWS's standard mode", "AMB-209", clusterNetwork({ podSecurityGroups: "standard" }), "ok"],
    [
      "trouble an hour ago",
      "AMB-302",
      { status: { ...FINE, ztunnelTrouble: { reason: "eof", detail: "x", secondsAgo: 3600 } } },
      "ok",
    ],
    ["rules of others, where no process of the node lives", "AMB-407", { inspect: INSPECT }, "warn"],
    [
      "no rules of others, which this process sees itself",
      "AMB-407",
      { ...facts({ foreignRules: [] }), inspect: INSPECT },
      "ok",
    ],
    ["a machine whose interfaces are named", "AMB-408", pods({ ...GOOD, machine: "rerouted" }), "ok"],
    [
      "a machine, and an agent that tells it of one pod at a time",
      "AMB-408",
      { inspect: { ...INSPECT, identity: MACHINE } },
      "warn",
    ],
    ["larger than the uplink", "AMB-411", network({ mtu: 9001, outside: { ifname: "veth0", mtu: 9001 } }), "warn"],
    ["no pair, as of ipvlan", "AMB-411", network({ outside: undefined }), "ok"],
    ["a policy for egress", "AMB-413", policies({ ...POLICY, rules: egress }), "warn"],
    [
      "another policy that lets it in",
      "AMB-413",
      policies(POLICY, { ...POLICY, rules: rulesOf({ port: 15008 }) }),
      "ok",
    ],
    ["a range of ports", "AMB-413", policies({ ...POLICY, rules: rulesOf({ port: 15000, endPort: 15010 }) }), "ok"],
    ["another namespace's", "AMB-413", policies({ ...POLICY, namespace: "other" }), "ok"],
    ["deny all", "AMB-413", policies({ ...POLICY, rules: { ingress: [], egress: [] } }), "ok"],
    [
      "only DNS",
      "AMB-413",
      policies({ ...POLICY, rules: { ...egress, egress: rulesOf({ protocol: "UDP", port: 53 }).ingress } }),
      "ok",
    ],
    ["every TCP port", "AMB-413", policies({ ...POLICY, rules: rulesOf({}) }), "ok"],
    [
      "a token that kubelet has not renewed",
      "AMB-604",
      facts({ credentials: { ...GOOD_FACTS.credentials, token: { expiresAt: NOW + HOUR, renewBy: NOW - HOUR } } }),
      "warn",
    ],
    [
      "a token for ever",
      "AMB-604",
      facts({ credentials: { ...GOOD_FACTS.credentials, token: { expiresAt: undefined, renewBy: undefined } } }),
      "warn",
    ],
  ] as const)("%s: %s", async (_, code, changes, verdict) => {
    expect((await verdictOf(code, changes))[0]).toBe(verdict);
  });
});

test("where nothing can be seen, nothing is well", async () => {
  writeFileSync(dir.file("closed"), "");
  const environment = {
    MOUNTED_CNI_NET_DIR: dir.file("closed"),
    AMBIENT_CNI_BIN_DIR: dir.file("closed"),
    CNI_AGENT_RUN_DIR: dir.file("closed"),
  };
  const hidden = new Error("EACCES: permission denied");
  const refuse = async () => Promise.reject(hidden);
  const blind: CheckContext = {
    ...contextOf({ environment }),
    facts: factsOf(
      Object.fromEntries(Object.keys(GOOD_FACTS).map((name) => [name, hidden])) as Record<keyof FactValues, Error>,
    ),
    read: refuse,
    kernelPods: refuse,
    inspect: refuse,
    verify: refuse,
  };
  const told = await Promise.all(
    CHECKS.map(async (check) => `${check.code} ${(await runCheck(check, blind)).verdict}`),
  );
  // A binary that can't be looked at is one that can't be run.
  expect(told).toEqual(CHECKS.map(({ code }) => `${code} ${code === "AMB-201" ? "fail" : "skip"}`));
});

test("where there are more pods than are looked into, that is said", async () => {
  const many = Array.from({ length: 70 }, (_, i) => podReport(`web-${i}`));
  expect(await verdictOf("AMB-407", pods(...many))).toEqual(["ok", "none does, of 60 out of 70 that were looked into"]);
});

test("what reverse path filtering drops of a proof is a failure", async () => {
  const context = contextOf({});
  const check = CHECKS.find(({ code }) => code === "AMB-108");
  if (check === undefined) throw new Error("no such check");
  const counting = { ...context, verify: async () => ({ ...PROOFS, proofs: [], dropped: 1 }) };
  expect(await runCheck(check, counting)).toMatchObject({
    verdict: "fail",
    evidence: "shop/web-7f4c eth0: 1 packets of its proof, rp_filter is 1 (strict)",
  });
});

describe("rules of a pod on a branch ENI", () => {
  const HOST = 3;
  const TABLE = 101;
  const rule = (changes: Partial<Rule>): Rule => ({
    ...{ family: 4, priority: 0, table: 255, fwmark: 0, fwmask: 0, iif: "", to: "", toPrefix: 0, ...changes },
  });
  const policy = rule({ priority: 1536, table: TABLE, iif: "vlanpod1" });
  const toPod = rule({ priority: 512, table: TABLE, to: "10.1.2.14", toPrefix: 32 });
  const fromPod = rule({ priority: 1535, table: 255, iif: "vlanpod1" });
  const others = [rule({}), rule({ priority: 512, table: 254, to: "10.1.2.14", toPrefix: 32 })];
  const read = (...rules: readonly Rule[]) =>
    readBranchAddresses(
      {
        links: () => [{ index: 7, name: "vlanpod1" }] as Link[],
        rules: () => [...others, ...rules],
        routes: (_, __, table) =>
          table === TABLE ? ([{ dst: "10.1.2.14", prefix: 32, oif: 7, type: "unicast" }] as Route[]) : [],
      },
      HOST,
      [{ ...GOOD, mesh: "captured", ips: ["10.1.2.14"] }],
    );
  const found = { pod: "shop/web-7f4c", ip: "10.1.2.14" };
  test.each([
    ["both", [policy, toPod, fromPod], [{ ...found, ruled: true }]],
    ["one", [policy, toPod], [{ ...found, ruled: false }]],
    ["the other", [policy, fromPod], [{ ...found, ruled: false }]],
    ["none", [policy], [{ ...found, ruled: false }]],
    ["on no branch ENI", [], []],
  ] as const)("%s", (_, rules, addresses) => {
    expect(read(...rules)).toEqual(addresses);
  });
});

test("those that ask somebody are begun first, and all are told of in their order", async () => {
  const began: string[] = [];
  const check = (code: string, asks: Check["asks"], wait: Promise<unknown> = Promise.resolve()): Check => ({
    ...{ code, category: "pods", title: "", pre: false, fix: "", about: "", ...(asks === undefined ? {} : { asks }) },
    run: async () => {
      began.push(code);
      await wait;
      return ok(code);
    },
  });
  let answer = (): void => undefined;
  const later = new Promise<void>((resolve) => {
    answer = resolve;
  });
  const checks = [
    check("first", undefined),
    check("api", "api", later),
    check("agent", "agent"),
    {
      ...check("second", undefined),
      run: () => {
        answer();
        return ok("second");
      },
    },
  ];
  const codes = async (changes: Changes): Promise<readonly string[]> => {
    began.length = 0;
    const told: string[] = [];
    for await (const { evidence } of runChecks(checks, contextOf(changes))) told.push(evidence);
    // What comes after the API server's answer does not wait for it.
    expect(told).toEqual(["first", "api", "agent", "second"]);
    return [...began];
  };
  expect(await codes({ version: VERSIONS })).toEqual(["api", "agent", "first"]);
  // Then the proofs are this process's work, like all else.
  expect(await codes({ version: { ...VERSIONS, source: KERNEL } })).toEqual(["api", "first", "agent"]);
});

test("who has heard enough has nothing more begun", async () => {
  const began: string[] = [];
  const checks = ["AMB-201", "AMB-205", "AMB-206"].map((code): Check => {
    const known = CHECKS.find((one) => one.code === code);
    if (known === undefined) throw new Error("no such check");
    const run = (context: CheckContext) => {
      began.push(code);
      return known.run(context);
    };
    return { ...known, run };
  });
  for await (const { code } of runChecks(checks, contextOf({ version: VERSIONS }))) {
    if (code === "AMB-201") break;
  }
  await new Promise((resolve) => setImmediate(resolve));
  expect(began.length).toBeLessThan(checks.length);
});

test("one that is never answered is not known, and the others are told of", async () => {
  vi.useFakeTimers();
  try {
    const hung = CHECKS.find(({ code }) => code === "AMB-104");
    if (hung === undefined) throw new Error("no such check");
    const context = contextOf({});
    const silent = { ...context, facts: { ...context.facts, serverTime: () => new Promise<never>(() => undefined) } };
    const report = runCheck(hung, silent);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(await report).toMatchObject({ verdict: "skip", evidence: "not known: no answer within 10 s" });
    expect(vi.getTimerCount()).toBe(0);
  } finally {
    vi.useRealTimers();
  }
});

test("one proof tells all that are content with any pod", async () => {
  const proved: string[] = [];
  const context = contextOf({
    ...pods(podReport("first"), GOOD),
    ...facts({ network: nodeNetwork({ uid: GOOD.uid, rpFilter: 0 }, {}) }),
  });
  const network = await context.facts.network();
  const both = network.pods.flatMap((pod) => [pod, { ...pod, uid: podReport("first").uid }]);
  const counting = {
    ...context,
    facts: { ...context.facts, network: async () => ({ ...network, pods: both }) },
    verify: async (uid: string) => {
      proved.push(uid);
      return context.verify(uid);
    },
  };
  for (const check of CHECKS) await runCheck(check, counting);
  expect(new Set(proved)).toEqual(new Set([podReport("first").uid]));
});

test("a pod in which nothing can be proved does not hide one that is wrong", async () => {
  const runsc = podReport("runsc");
  const context = contextOf({ ...pods(runsc, GOOD) });
  const verify = async (uid: string) => ({
    ...(uid === runsc.uid ? (sandboxes.verify ?? PROOFS) : PROOFS),
    dropped: 0,
  });
  const check = CHECKS.find(({ code }) => code === "AMB-406");
  if (check === undefined) throw new Error("no such check");
  expect((await runCheck(check, { ...context, verify })).verdict).toBe("fail");
});

test("what can't be looked at is no verdict", async () => {
  const pre = CHECKS.find(({ code }) => code === "AMB-202");
  if (pre === undefined) throw new Error("no such check");
  const report = await runCheck(pre, contextOf({ environment: { MOUNTED_CNI_NET_DIR: "/none/of/these" } }));
  expect(report).toMatchObject({ verdict: "skip", fix: null });
});

test("who is asked is said above the table, and in the document", async () => {
  const environment = {
    MOUNTED_CNI_NET_DIR: dir.file("net.d"),
    AMBIENT_CNI_BIN_DIR: dir.file("bin"),
    CNI_AGENT_RUN_DIR: dir.file("run"),
  };
  const socket = dir.file("none.sock");
  const argv = ["check", "--category", "cni", "--socket", socket];
  const note = `agent unreachable: ENOENT ${socket}`;
  const { stdout } = await cli(argv, { environment });
  expect(stdout.split("\n").slice(0, 2)).toEqual([`source: kernel (${note})`, "cni"]);
  const json = await cli([...argv, "-o", "json"], { environment });
  expect(JSON.parse(json.stdout)).toMatchObject({ source: { from: "kernel", note } });
});

test("who may ask nobody is told so by the exit status: nothing fails that nobody may look at", async () => {
  using scratch = new ScratchDir();
  const path = scratch.file("agent.sock");
  const refuse = () => {
    throw new AgentError("NOT_PERMITTED", "not permitted");
  };
  const server = new DebugServer({
    path,
    routes: { config: { get: refuse }, version: { get: refuse } },
    logger: silent,
  });
  await server.listen();
  try {
    const { status, stdout } = await cli(["check", "--category", "ztunnel", "--socket", path]);
    expect(stdout).toContain("0 failed, 3 not known");
    expect(status).toBe(4);
  } finally {
    await server.stop();
  }
});

test("docs/checks.md says what the checks say", async () => {
  await expect(checksDocument()).toMatchFileSnapshot("../../../docs/checks.md");
});

test("the command prints each as it ends, and its exit status is that of the worst", async () => {
  // Not this process's settings count: on k3s the directories are not where they usually are, and the agent knows.
  const environment = { NODE_NAME: "worker-3", AMBIENT_CNI_HOST_ROOT: "/", MOUNTED_CNI_NET_DIR: "/nowhere" };
  const onNode = { cniNetDir: dir.file("net.d"), cniBinDir: dir.file("bin"), runDir: dir.file("run") };
  const config = { ...CONFIG, onNode };
  await withAgent({ status: FINE, pods: PODS, engines: ENGINES, version: VERSIONS, config }, async (socket) => {
    const argv = ["check", "--category", "cni", "--socket", socket];
    const fine = await cli(argv, { environment });
    expect(fine).toMatchObject({ status: 0, stderr: "" });
    expect(fine.stdout).toMatch(
      /^cni\n {2}√ the plugin's binary .*\n(.*\n)+9 passed, 0 warnings, 0 failed, 0 not known\n$/,
    );
    conf("10-net.conflist", [BRIDGE]);
    const broken = await cli(argv, { environment });
    expect(broken.status).toBe(1);
    expect(broken.stdout).toMatch(
      / {2}× the plugin is in the configuration by which pods start {3}AMB-202\n {6}.*\n {6}fix: .* see docs\/checks.md#amb-202\n/,
    );
    const json = await cli([...argv, "-o", "json"], { environment });
    expect(JSON.parse(json.stdout)).toMatchObject({
      schemaVersion: 1,
      source: { from: "agent", note: "" },
      checks: expect.arrayContaining([expect.objectContaining({ code: "AMB-202", verdict: "fail" })]),
    });
  });
});
