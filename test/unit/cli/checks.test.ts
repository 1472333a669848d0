// SPDX-License-Identifier: Apache-2.0
// Every check is provoked, and is content with a node where all is well.
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type CheckContext, type CheckVerdict, runCheck } from "../../../src/cli/check/check.ts";
import { CHECKS } from "../../../src/cli/check/checks.ts";
import { checksDocument } from "../../../src/cli/check/document.ts";
import { parseConfig } from "../../../src/core/config/parse.ts";
import type { DocumentName, Documents } from "../../../src/core/report/documents.ts";
import { native } from "../../../src/native/load.ts";
import { CONFIG, ENGINES, FINE, INSPECT, PODS, PROOFS, podReport } from "../../fixtures/reports.ts";
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
};

const ipv6 = (value: string): Documents["config"] => ({
  ...CONFIG,
  settings: [{ setting: "AMBIENT_IPV6", value, origin: "default", status: "honoured" }],
});

const GOOD = podReport("web-7f4c");
const SIDECAR = podReport("web-7f4c", { mesh: "sidecar", engine: null, ztunnel: null });
const FACTS = INSPECT.facts.filter(({ ok }) => ok === true);

function contextOf({ kernelPods, environment = {}, ...changes }: Changes): CheckContext {
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
    status: FINE,
    pods: { ...PODS, pods: [GOOD] },
    engines: { ...ENGINES, engines: ENGINES.engines.map((one) => ({ ...one, works: true, losses: [] })) },
    config: ipv6("true"),
    inspect: { ...INSPECT, facts: FACTS },
    verify: { ...PROOFS, proofs: PROOFS.proofs.filter(({ result }) => result === "proved") },
    ...changes,
  };
  const read = async <Name extends DocumentName>(name: Name) => documents[name] as Documents[Name];
  return {
    view: {
      config: { ...config, procDir: "/proc" },
      environment,
      binding: native(),
      head: () => ({
        schemaVersion: 1,
        source: { from: "kernel", note: "" },
        takenAt: "2026-01-01T12:00:00.000Z",
        node: null,
      }),
    },
    read,
    kernelPods: async () => kernelPods ?? [{ ...GOOD, mesh: "captured", ztunnel: "listening" }],
    inspect: () => read("inspect"),
    verify: () => read("verify"),
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

/** What provokes each code; run before the check looks. */
const PROVOKED: Readonly<Record<string, () => readonly [CheckVerdict, RegExp, Changes?]>> = {
  "AMB-101": () => ["fail", /ebpf: no bpffs; .*iptables: no bpffs/, engines({ works: false, reason: "no bpffs" })],
  "AMB-102": () => ["warn", /no bpffs/, engines({ works: false, reason: "no bpffs" })],
  "AMB-103": () => ["warn", /sysctls are denied/, engines({ losses: ["sysctls are denied"] })],
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
  "AMB-301": () => ["fail", /^none is connected$/, { status: { ...FINE, ztunnels: [] } }],
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
  "AMB-407": () => ["warn", /^shop\/web-7f4c: ip nat$/, { inspect: INSPECT }],
  "AMB-408": () => {
    const identity = {
      serviceAccount: "vm",
      labels: { "kubevirt.io": "virt-launcher" },
      annotations: {},
      namespaceLabels: {},
    };
    return ["warn", /^shop\/web-7f4c$/, { inspect: { ...INSPECT, identity } }];
  },
  "AMB-409": () => [
    "fail",
    /^shop\/web-7f4c: a rule was changed in place$/,
    {
      ...pods(SIDECAR),
      inspect: { ...INSPECT, facts: [{ name: "redirection", ok: false, text: "a rule was changed in place" }] },
    },
  ],
  "AMB-410": () => ["fail", /inbound IPv4: .*past ztunnel/, { ...pods(SIDECAR), verify: PROOFS }],
  "AMB-601": () => [
    "fail",
    /ECONNREFUSED/,
    { status: { ...FINE, source: { from: "kernel", note: "agent unreachable: ECONNREFUSED" } } },
  ],
  "AMB-602": () => {
    const kubernetes = (FINE.kubernetes ?? []).map((one) => ({ ...one, watchAgeSeconds: null }));
    return ["warn", /no live watch of pods and namespaces/, { status: { ...FINE, kubernetes } }];
  },
};

/** Of the machine itself, which a unit test can't change: AMB-107's count, AMB-603's pins (test/e2e). */
const OF_THE_NODE = ["AMB-107", "AMB-603"];

describe("every check", () => {
  test("has a test that provokes it", () => {
    expect([...Object.keys(PROVOKED), ...OF_THE_NODE].sort()).toEqual(CHECKS.map(({ code }) => code).sort());
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

test("what can't be looked at is no verdict", async () => {
  const pre = CHECKS.find(({ code }) => code === "AMB-202");
  if (pre === undefined) throw new Error("no such check");
  const report = await runCheck(pre, contextOf({ environment: { MOUNTED_CNI_NET_DIR: "/none/of/these" } }));
  expect(report).toMatchObject({ verdict: "skip", fix: null });
});

test("docs/checks.md says what the checks say", async () => {
  await expect(checksDocument()).toMatchFileSnapshot("../../../docs/checks.md");
});

test("the command prints each as it ends, and its exit status is that of the worst", async () => {
  const environment = {
    NODE_NAME: "worker-3",
    MOUNTED_CNI_NET_DIR: dir.file("net.d"),
    AMBIENT_CNI_BIN_DIR: dir.file("bin"),
    CNI_AGENT_RUN_DIR: dir.file("run"),
  };
  await withAgent({ status: FINE, pods: PODS, engines: ENGINES }, async (socket) => {
    const argv = ["check", "--category", "cni", "--socket", socket];
    const fine = await cli(argv, { environment });
    expect(fine).toMatchObject({ status: 0, stderr: "" });
    expect(fine.stdout).toMatch(
      /^cni\n {2}√ the plugin's binary .*\n(.*\n)+6 passed, 0 warnings, 0 failed, 0 not looked at\n$/,
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
      checks: expect.arrayContaining([expect.objectContaining({ code: "AMB-202", verdict: "fail" })]),
    });
  });
});
