// SPDX-License-Identifier: Apache-2.0
// One test per row of the table: what a value does by flag, by variable, empty, unset and wrong.
import { describe, expect, test } from "vitest";
import type { Config } from "../../../src/core/config/config.ts";
import { parseConfig } from "../../../src/core/config/parse.ts";
import { SETTINGS, type SettingId, TABLE } from "../../../src/core/config/table.ts";
import { matchesLabels } from "../../../src/core/selector.ts";

interface Row {
  /** What of the configuration the row decides. */
  readonly of: (config: Config) => unknown;
  readonly unset: unknown;
  readonly empty: unknown | typeof WRONG;
  readonly good: readonly (readonly [text: string, value: unknown])[];
  readonly bad?: readonly string[];
  /** Other variables without which the row has no effect. */
  readonly with?: Readonly<Record<string, string>>;
}

const WRONG = Symbol("an error");
const BAD_BOOL = ["yes", "2", "tRUE", " true"];
const bool = (of: Row["of"], unset: boolean, empty: boolean): Row => ({
  of,
  unset,
  empty,
  good: [
    ["true", true],
    ["1", true],
    ["t", true],
    ["T", true],
    ["TRUE", true],
    ["True", true],
    ["false", false],
    ["0", false],
    ["f", false],
    ["F", false],
    ["FALSE", false],
    ["False", false],
  ],
  bad: BAD_BOOL,
});
const text = (of: Row["of"], unset: string, empty = ""): Row => ({
  of,
  unset,
  empty,
  good: [["some text", "some text"]],
});
const path = (of: Row["of"], unset: string, empty: unknown): Row => ({
  of,
  unset,
  empty,
  good: [
    ["/a/b", "/a/b"],
    ["/a/b/", "/a/b"],
  ],
  bad: ["relative", "/a/../b"],
});

const in_ = (key: string, ...values: string[]) => ({ key, operator: "In", values });

const rows: Partial<Record<SettingId, Row>> = {
  ambientEnabled: { ...bool((c) => c.ambientEnabled, false, false), with: { NODE_NAME: "n" } },
  enablementSelectors: {
    of: (c) =>
      [
        [{ "istio.io/dataplane-mode": "ambient" }, {}],
        [{}, { "istio.io/dataplane-mode": "ambient" }],
        [{ "istio.io/dataplane-mode": "none" }, { "istio.io/dataplane-mode": "ambient" }],
        [{ app: "x" }, {}],
      ].map(([pod = {}, namespace = {}]) =>
        c.enablementSelectors.some(
          (s) => matchesLabels(s.podSelector, pod) && matchesLabels(s.namespaceSelector, namespace),
        ),
      ),
    unset: [true, true, false, false],
    empty: [false, false, false, false],
    good: [
      ["- podSelector: {matchLabels: {app: x}}", [false, false, false, true]],
      ["- {}", [true, true, true, true]],
      ["[]", [false, false, false, false]],
    ],
    bad: ["- podSelector: [", "- podSelecter: {}", "text"],
  },
  excludedNamespaces: {
    of: (c) => c.excludedNamespaces,
    unset: [],
    empty: [],
    good: [
      ["kube-system", ["kube-system"]],
      [" a , ,b,a,", ["a", "b"]],
    ],
    bad: ["Upper", "a b", "a/b"],
  },
  dnsCapture: bool((c) => c.dnsCapture, false, false),
  dnsCaptureServers: {
    of: (c) => c.dnsCaptureServers,
    unset: "all",
    empty: "all",
    good: [
      ["all", "all"],
      ["resolvconf", "resolvconf"],
    ],
    bad: ["ALL", "some"],
  },
  ipv6: bool((c) => c.ipv6, false, false),
  excludeOutboundCidrs: {
    of: (c) => c.excludeOutboundCidrs,
    unset: [],
    empty: [],
    good: [["10.1.2.3/8, 192.0.2.1,fd00::1/64", ["10.0.0.0/8", "192.0.2.1/32", "fd00::/64"]]],
    bad: ["10.0.0.0/33", "10.0.0/8", "x", "10.0.0.0/8; drop"],
  },
  ownerGroups: {
    of: (c) => c.sidecarOwnerGroups.include,
    unset: "*",
    empty: "*",
    good: [
      ["*", "*"],
      ["202, 0", [202, 0]],
    ],
    bad: ["staff", "*,1", "-1", "4294967296", Array.from({ length: 65 }, (_, gid) => gid).join()],
  },
  ownerGroupsExclude: {
    of: (c) => c.sidecarOwnerGroups.exclude,
    unset: [],
    empty: [],
    good: [["888,889,888", [888, 889]]],
    bad: ["*", "root"],
  },
  podExcludeOutboundCidrs: bool((c) => c.podExcludeOutboundCidrs, false, false),
  nodeName: text((c) => c.nodeName, ""),
  podName: text((c) => c.podName, ""),
  podNamespace: text((c) => c.podNamespace, ""),
  kubeconfig: path((c) => c.kubeconfig ?? "none", "none", "none"),
  kubernetesHost: {
    ...text((c) => c.kubernetesService?.host, ""),
    unset: undefined,
    empty: undefined,
    good: [["10.96.0.1", "10.96.0.1"]],
  },
  kubernetesPort: {
    of: (c) => c.kubernetesService?.port,
    with: { KUBERNETES_SERVICE_HOST: "h" },
    unset: 443,
    empty: 443,
    good: [["6443", 6443]],
    bad: ["0", "65536", "https", "tcp://10.0.0.1:443"],
  },
  kubernetesProtocol: { of: () => "https", unset: "https", empty: "https", good: [["https", "https"]], bad: ["http"] },
  engine: {
    of: (c) => c.engine,
    unset: "auto",
    empty: "auto",
    good: ["auto", "ebpf", "nftables", "iptables"].map((engine) => [engine, engine] as const),
    bad: ["nft", "EBPF"],
  },
  podEngineAnnotation: bool((c) => c.podEngineAnnotation, false, false),
  nativeNftables: bool((c) => c.nativeNftables, false, false),
  forceIptablesBinary: {
    of: (c) => c.forceIptablesBinary,
    unset: undefined,
    empty: undefined,
    good: [
      ["legacy", "legacy"],
      ["nft", "nft"],
    ],
    bad: ["iptables", "NFT"],
  },
  probeSources: {
    of: (c) => c.probeSources,
    unset: "host",
    empty: "host",
    good: [
      ["kubelet", "kubelet"],
      ["host", "host"],
    ],
    bad: ["any"],
  },
  probeIpv4: {
    of: (c) => c.probeIpv4,
    unset: "169.254.7.127",
    empty: WRONG,
    good: [["192.0.2.9", "192.0.2.9"]],
    bad: ["fd00::1", "1.2.3", "x"],
  },
  probeIpv6: {
    of: (c) => c.probeIpv6,
    unset: "fd16:9254:7127:1337:ffff:ffff:ffff:ffff",
    empty: WRONG,
    good: [["FD00:0:0::1", "fd00::1"]],
    bad: ["192.0.2.9", "::ffff:192.0.2.9", "fd00::x"],
  },
  awsBranchEni: bool((c) => c.awsBranchEni, true, true),
  switchToHostNetns: bool((c) => c.switchToHostNetns, false, false),
  drainSeconds: {
    of: (c) => c.drainSeconds,
    unset: 5,
    empty: 5,
    good: [
      ["0", 0],
      ["300", 300],
    ],
    bad: ["-1", "301", "5s", "1.5"],
  },
  existingConnections: {
    of: (c) => c.existingConnections,
    unset: "keep",
    empty: "keep",
    good: [["reset", "reset"]],
    bad: ["drop", "RESET"],
  },
  disableSafeUpgrade: bool((c) => c.disableSafeUpgrade, false, false),
  uncaptureOnRemoval: bool((c) => c.uncaptureOnRemoval, false, false),
  hostRoot: {
    of: (c) => [c.hostRoot, c.procDir, c.cniNetDir, c.cniBinDir],
    unset: ["/host", "/host/proc", "/host/etc/cni/net.d", "/host/opt/cni/bin"],
    empty: ["/host", "/host/proc", "/host/etc/cni/net.d", "/host/opt/cni/bin"],
    good: [
      ["/", ["/", "/proc", "/etc/cni/net.d", "/opt/cni/bin"]],
      ["/node/", ["/node", "/node/proc", "/node/etc/cni/net.d", "/node/opt/cni/bin"]],
    ],
    bad: ["host", "/host/../etc"],
  },
  debugSocket: path((c) => c.debugSocket, "/var/run/istio-cni/ambient-cni.sock", "/var/run/istio-cni/ambient-cni.sock"),
  procDir: path((c) => c.procDir, "/host/proc", "/host/proc"),
  ztunnelSocket: {
    ...path((c) => c.ztunnelSocket, "/var/run/ztunnel/ztunnel.sock", WRONG),
    bad: ["relative", `/${"x".repeat(107)}`],
  },
  runDir: { ...path((c) => c.runDir, "/var/run/istio-cni", WRONG), bad: ["relative", `/${"x".repeat(100)}`] },
  cniNetDir: path((c) => c.cniNetDir, "/host/etc/cni/net.d", "/host/etc/cni/net.d"),
  cniBinDir: path((c) => c.cniBinDir, "/host/opt/cni/bin", "/host/opt/cni/bin"),
  pluginSourceDir: path((c) => c.pluginSourceDir, "/opt/cni/bin", "/opt/cni/bin"),
  cniConfName: {
    of: (c) => c.cniConfName,
    unset: "",
    empty: "",
    good: [
      ["10-calico.conflist", "10-calico.conflist"],
      ["istio-cni.conf", "istio-cni.conf"],
    ],
    bad: ["../10.conf", "a/b.conf", "noextension", ".hidden.conf"],
  },
  chained: bool((c) => c.chained, true, false),
  istioOwnedConfig: {
    ...bool((c) => c.istioOwnedConfig, false, false),
    with: { AMBIENT_ENABLED: "true", NODE_NAME: "n" },
  },
  istioOwnedConfigName: {
    of: (c) => c.istioOwnedConfigName,
    unset: "02-istio-cni.conflist",
    empty: "02-istio-cni.conflist",
    good: [["01-x.conflist", "01-x.conflist"]],
    bad: ["01-x.conf", "/etc/01-x.conflist"],
  },
  cniConfGroupRead: bool((c) => c.cniConfGroupRead, false, false),
  agentAway: {
    of: (c) => c.agentAway,
    unset: "namespace",
    empty: "namespace",
    good: [
      ["namespace", "namespace"],
      ["strict", "strict"],
    ],
    bad: ["open"],
  },
  repairEnabled: bool((c) => c.repair.enabled, true, false),
  repairPods: bool((c) => c.repair.repairPods, false, false),
  repairDeletePods: bool((c) => c.repair.deletePods, false, false),
  repairLabelPods: bool((c) => c.repair.labelPods, false, false),
  repairLabelKey: {
    ...text((c) => c.repair.labelKey, "cni.istio.io/uninitialized"),
    good: [["a.b/c", "a.b/c"]],
    bad: ["a b", "/a"],
  },
  repairLabelValue: { ...text((c) => c.repair.labelValue, "true"), good: [["broken", "broken"]], bad: ["a/b", "-"] },
  repairNodeName: text((c) => c.repair.nodeName, ""),
  repairSidecarAnnotation: text((c) => c.repair.sidecarAnnotation, "sidecar.istio.io/status"),
  repairInitContainerName: text((c) => c.repair.initContainerName, "istio-validation"),
  repairInitExitCode: {
    of: (c) => c.repair.initContainerExitCode,
    unset: 126,
    empty: 0,
    good: [["1", 1]],
    bad: ["256", "x"],
  },
  repairInitTerminationMessage: text((c) => c.repair.initContainerTerminationMessage, ""),
  repairLabelSelectors: {
    of: (c) => c.repair.labelSelectors.requirements,
    unset: [],
    empty: [],
    good: [
      ["a", [{ key: "a", operator: "Exists", values: [] }]],
      ["a/b in (x, y),!c", [in_("a/b", "x", "y"), { key: "c", operator: "DoesNotExist", values: [] }]],
      ["a=b,c!=d", [in_("a", "b"), { key: "c", operator: "NotIn", values: ["d"] }]],
    ],
    bad: ["a=b=c", "a in b", "a,", "-a=b", "a=b c", "a in (x y)"],
  },
  repairFieldSelectors: {
    of: (c) => c.repair.fieldSelectors,
    unset: [],
    empty: [],
    good: [
      [
        "metadata.namespace!=kube-system,status.phase==Pending",
        [
          { field: "metadata.namespace", equal: false, value: "kube-system" },
          { field: "status.phase", equal: true, value: "Pending" },
        ],
      ],
    ],
    bad: ["status.phase", "status.phase=a=b", "spec.priority=1", "a in (b)"],
  },
  monitoringPort: {
    of: (c) => c.monitoringPort,
    unset: 15014,
    empty: 0,
    good: [
      ["0", 0],
      ["-1", -1],
      ["9090", 9090],
    ],
    bad: ["65536", "http"],
  },
  healthPort: {
    of: (c) => c.healthPort,
    unset: 8000,
    empty: 8000,
    good: [
      ["0", 0],
      ["8001", 8001],
    ],
    bad: ["65536"],
  },
  logLevels: {
    of: (c) => Object.fromEntries(c.logLevels),
    unset: { default: "info" },
    empty: WRONG,
    good: [
      ["debug", { default: "debug" }],
      ["default:warn,cni-agent:debug", { default: "warn", "cni-agent": "debug" }],
      ["zds:debug,all:none,kube:error", { default: "none", kube: "error" }],
    ],
    bad: ["loud", "a:b:c", "default:", ":info", "sco pe:info"],
  },
  logAsJson: bool((c) => c.logAsJson, false, false),
  logTargets: {
    of: (c) => c.logTargets,
    unset: ["stdout"],
    empty: [],
    good: [
      ["stderr", ["stderr"]],
      ["stdout,/var/log/x", ["stdout", "/var/log/x"]],
    ],
    bad: ["file"],
  },
  memoryLimit: {
    of: (c) => c.memoryLimit,
    unset: undefined,
    empty: undefined,
    good: [
      ["104857600", 104857600],
      ["100MiB", 104857600],
      ["off", undefined],
    ],
    bad: ["100M", "-1", "1.5GiB"],
  },
};

const parse = (env: Record<string, string>, argv: string[] = []) => parseConfig(env, argv);

test("every honoured or refused row has its test here", () => {
  const expected = SETTINGS.filter(([, setting]) => setting.status !== "accepted").map(([id]) => id);
  expect(Object.keys(rows).sort()).toEqual([...expected].sort());
});

describe.each(Object.entries(rows) as [SettingId, Row][])("%s", (id, row) => {
  const { env, flag } = TABLE[id];
  const variable = env[0];
  const others = row.with ?? {};

  test("unset", () => expect(row.of(parse(others).config)).toEqual(row.unset));

  for (const [value, expected] of row.good) {
    for (const name of env) {
      test(`${name}=${value}`, () => expect(row.of(parse({ ...others, [name]: value }).config)).toEqual(expected));
    }
    if (flag !== undefined) {
      test(`--${flag}=${value} wins over the variable`, () => {
        // Whatever other value the row knows; where it knows one only, the empty one.
        const [other = ""] = row.good.find(([, otherwise]) => otherwise !== expected) ?? [];
        const env = variable === undefined ? others : { ...others, [variable]: other };
        expect(row.of(parse(env, [`--${flag}=${value}`]).config)).toEqual(expected);
      });
    }
  }

  for (const value of row.bad ?? []) {
    for (const name of env) {
      test(`${name}=${value} is an error that names both`, () => {
        expect(() => parse({ ...others, [name]: value })).toThrow(name);
        expect(() => parse({ ...others, [name]: value })).toThrow(JSON.stringify(value).slice(0, 60));
      });
    }
    if (flag !== undefined) {
      test(`--${flag}=${value} is an error`, () =>
        expect(() => parse(others, [`--${flag}=${value}`])).toThrow(`--${flag}`));
    }
  }

  for (const name of env) {
    test(`${name} set to the empty string`, () => {
      const read = () => row.of(parse({ ...others, [name]: "" }).config);
      if (row.empty === WRONG) expect(read).toThrow(name);
      else expect(read()).toEqual(row.empty);
    });
  }
});

describe.each(SETTINGS.filter(([, setting]) => setting.status === "accepted"))("%s", (id, setting) => {
  test("is accepted without effect, and one line says so", () => {
    const plain = parse({});
    expect(plain.notes).toEqual([]);
    for (const name of setting.env) {
      const { config, notes, warnings } = parse({ [name]: "some value" });
      expect({ ...config, systemNamespace: "" }).toEqual({ ...plain.config, systemNamespace: "" });
      expect(notes).toEqual([`${name}="some value" has no effect: ${setting.effect}`]);
      expect(warnings).toEqual([]);
      expect(parse({ [name]: "" }).notes).toHaveLength(1);
    }
    if (setting.flag !== undefined) {
      const { config, notes } = parse({}, [`--${setting.flag}=some value`]);
      expect(config).toEqual(plain.config);
      expect(notes).toEqual([`--${setting.flag}="some value" has no effect: ${setting.effect}`]);
    }
    expect(setting.env.length + (setting.flag === undefined ? 0 : 1), id).toBeGreaterThan(0);
  });
});
