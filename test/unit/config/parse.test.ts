// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { parseConfig } from "../../../src/core/config/parse.ts";
import { AgentError } from "../../../src/core/errors.ts";

const failure = (env: Record<string, string>, argv: string[] = []): AgentError => {
  try {
    parseConfig(env, argv);
  } catch (error) {
    if (error instanceof AgentError) return error;
    throw error;
  }
  throw new Error("no error");
};

test("nothing set at all is a valid configuration, with the defaults of upstream's binary", () => {
  const { config, notes, warnings } = parseConfig({}, []);
  expect(config).toMatchObject({ ambientEnabled: false, dnsCapture: false, ipv6: false, chained: true });
  expect([notes, warnings]).toEqual([[], []]);
});

/** What the stock charts put into the ConfigMap and the container's environment. */
const CHART_124 = {
  CURRENT_AGENT_VERSION: "1.24.0",
  AMBIENT_ENABLED: "true",
  AMBIENT_DNS_CAPTURE: "true",
  AMBIENT_IPV6: "true",
  CHAINED_CNI_PLUGIN: "true",
  EXCLUDED_NAMESPACES: "kube-system",
  REPAIR_ENABLED: "true",
  REPAIR_LABEL_PODS: "false",
  REPAIR_DELETE_PODS: "false",
  REPAIR_REPAIR_PODS: "true",
  REPAIR_INIT_CONTAINER_NAME: "istio-validation",
  REPAIR_BROKEN_POD_LABEL_KEY: "cni.istio.io/uninitialized",
  REPAIR_BROKEN_POD_LABEL_VALUE: "true",
  REPAIR_NODE_NAME: "node",
  REPAIR_RUN_AS_DAEMON: "true",
  REPAIR_SIDECAR_ANNOTATION: "sidecar.istio.io/status",
  NODE_NAME: "node",
  POD_NAME: "istio-cni-node-x",
  POD_NAMESPACE: "istio-system",
  GOMEMLIMIT: "8000000000",
  GOMAXPROCS: "2",
  KUBERNETES_SERVICE_HOST: "10.96.0.1",
  KUBERNETES_SERVICE_PORT: "443",
};

test("the environment of the 1.24 chart: excluded namespaces by their old name, the default selectors", () => {
  const { config, warnings } = parseConfig(CHART_124, ["--log_output_level=info"]);
  expect(warnings).toEqual([]);
  expect(config.excludedNamespaces).toEqual(["kube-system"]);
  expect(config.enablementSelectors).toHaveLength(2);
  expect(config.switchToHostNetns).toBe(false);
  expect(config.kubernetesService).toEqual({ host: "10.96.0.1", port: 443 });
});

test("the environment of the newest chart", () => {
  const { EXCLUDED_NAMESPACES: _, ...common } = CHART_124;
  const env = {
    ...common,
    EXCLUDE_NAMESPACES: "kube-system",
    AMBIENT_ENABLEMENT_SELECTOR:
      "- podSelector:\n    matchLabels: {istio.io/dataplane-mode: ambient}\n- podSelector:\n    matchExpressions:\n    - { key: istio.io/dataplane-mode, operator: NotIn, values: [none] }\n  namespaceSelector:\n    matchLabels: {istio.io/dataplane-mode: ambient}\n",
    AMBIENT_RECONCILE_POD_RULES_ON_STARTUP: "true",
    ENABLE_AMBIENT_DETECTION_RETRY: "false",
    NATIVE_NFTABLES: "false",
    ISTIO_OWNED_CNI_CONFIG: "false",
    ALLOW_SWITCH_TO_HOST_NS: "true",
  };
  const { config, warnings, notes } = parseConfig(env, ["--log_output_level=default:info", "--log_as_json"]);
  expect(warnings).toEqual([]);
  expect(config.enablementSelectors).toEqual(parseConfig({}, []).config.enablementSelectors);
  expect(config).toMatchObject({ switchToHostNetns: true, logAsJson: true, excludedNamespaces: ["kube-system"] });
  expect(notes.map((note) => note.split("=", 1)[0])).toContain("AMBIENT_RECONCILE_POD_RULES_ON_STARTUP");
});

test("all errors come in one message, each with its variable and value", () => {
  const error = failure({ AMBIENT_IPV6: "maybe", MONITORING_PORT: "x", AMBIENT_CNI_ENGINE: "xdp" }, [
    "--nope",
    "stray",
  ]);
  expect(error.code).toBe("CONFIG_INVALID");
  const lines = error.message.split("\n");
  expect(lines[0]).toBe("the configuration has 5 errors:");
  expect(lines.slice(1).sort()).toEqual([
    expect.stringContaining('AMBIENT_CNI_ENGINE="xdp": must be one of auto, ebpf, nftables, iptables'),
    expect.stringContaining('AMBIENT_IPV6="maybe"'),
    expect.stringContaining('MONITORING_PORT="x"'),
    expect.stringContaining('unexpected argument "stray"'),
    expect.stringContaining("unknown flag --nope"),
  ]);
  expect(error.remedy).toContain("docs/config.md");
});

test("a very long value is cut in the message", () => {
  expect(failure({ AMBIENT_IPV6: "x".repeat(5000) }).message.length).toBeLessThan(400);
});

test("text is bounded", () => {
  expect(failure({ NODE_NAME: "x".repeat(4097) }).message).toContain("NODE_NAME");
});

test("an ambient agent must know its node", () => {
  expect(failure({ AMBIENT_ENABLED: "true" }).message).toContain("NODE_NAME");
  expect(parseConfig({ AMBIENT_ENABLED: "true", NODE_NAME: "n" }, []).config.nodeName).toBe("n");
});

test("metrics and health cannot share a port, unless both are off", () => {
  expect(failure({ MONITORING_PORT: "8000" }).message).toContain("AMBIENT_CNI_HEALTH_PORT");
  expect(parseConfig({ MONITORING_PORT: "0", AMBIENT_CNI_HEALTH_PORT: "0" }, []).config.healthPort).toBe(0);
});

test("flag > variable > default, and an empty variable counts as set", () => {
  expect(parseConfig({ CHAINED_CNI_PLUGIN: "false" }, ["--chained-cni-plugin"]).config.chained).toBe(true);
  expect(parseConfig({ CHAINED_CNI_PLUGIN: "" }, []).config.chained).toBe(false);
  expect(parseConfig({}, ["--chained-cni-plugin=false"]).config.chained).toBe(false);
});

test("flags as pflag reads them", () => {
  const level = (argv: string[]) => Object.fromEntries(parseConfig({}, argv).config.logLevels);
  expect(level(["--log_output_level", "debug"])).toEqual({ default: "debug" });
  expect(level(["--log_output_level=debug", "--log_output_level=warn"])).toEqual({ default: "warn" });
  expect(parseConfig({}, ["--log_target=stderr", "--log_target", "/x"]).config.logTargets).toEqual(["stderr", "/x"]);
  expect(failure({}, ["--log_as_json", "true"]).message).toContain('unexpected argument "true"');
  expect(failure({}, ["--log_output_level"]).message).toContain("--log_output_level needs a value");
  expect(failure({}, ["--log-output-level=debug"]).message).toContain("did you mean --log_output_level?");
  expect(failure({}, ["--"]).message).toContain("unexpected argument");
  expect(failure({}, ["-v"]).message).toContain("unexpected argument");
});

test("a flag of a repeated setting of another kind of value does not leak into the next", () => {
  expect(parseConfig({}, ["--log_caller", "--log_as_json"]).config.logAsJson).toBe(true);
});

test("an unknown AMBIENT_CNI_ variable is a warning that names the nearest", () => {
  const { warnings } = parseConfig(
    { AMBIENT_CNI_ENGIN: "ebpf", AMBIENT_CNI_ZZZZZZ: "", AMBIENT_OTHER: "x", AMBIENT_CNI_ADDON: "/x" },
    [],
  );
  expect(warnings).toEqual([
    "unknown variable AMBIENT_CNI_ENGIN is ignored; did you mean AMBIENT_CNI_ENGINE?",
    "unknown variable AMBIENT_CNI_ZZZZZZ is ignored",
  ]);
});

test("two names of one setting: the first counts, a difference is said", () => {
  const env = { EXCLUDE_NAMESPACES: "a", EXCLUDED_NAMESPACES: "b" };
  expect(parseConfig(env, []).config.excludedNamespaces).toEqual(["a"]);
  expect(parseConfig(env, []).warnings).toEqual([
    'EXCLUDE_NAMESPACES and EXCLUDED_NAMESPACES differ; EXCLUDE_NAMESPACES="a" counts',
  ]);
  const owned = { ISTIO_OWNED_CNI_CONFIG_FILENAME: "", ISTIO_OWNED_CNI_CONF_FILENAME: "01-x.conflist" };
  expect(parseConfig(owned, []).config.istioOwnedConfigName).toBe("01-x.conflist");
});

test("settings that lose against another one say so", () => {
  const both = parseConfig({ NATIVE_NFTABLES: "true", FORCE_IPTABLES_BINARY: "legacy" }, []);
  expect(both.config.forceIptablesBinary).toBeUndefined();
  expect(both.warnings).toEqual([expect.stringContaining("FORCE_IPTABLES_BINARY is ignored")]);
  const owned = parseConfig({ ISTIO_OWNED_CNI_CONFIG: "true", CHAINED_CNI_PLUGIN: "false" }, []);
  expect(owned.config.istioOwnedConfig).toBe(false);
  expect(owned.warnings).toEqual([expect.stringContaining("ISTIO_OWNED_CNI_CONFIG is ignored")]);
  const nothing = parseConfig({ AMBIENT_ENABLEMENT_SELECTOR: "" }, []);
  expect(nothing.warnings).toEqual([expect.stringContaining("no pod belongs to the mesh")]);
});

test("the copy that istio-owned writes can't be what it copies", () => {
  const env = { ISTIO_OWNED_CNI_CONFIG: "true", CHAINED_CNI_PLUGIN: "true", AMBIENT_ENABLED: "true", NODE_NAME: "n" };
  const parse = (name: string) => parseConfig({ ...env, CNI_CONF_NAME: name }, []).config.cniConfName;
  expect(() => parse("02-istio-cni.conflist")).toThrowError(/CNI_CONF_NAME="02-istio-cni.conflist": is the copy/);
  expect(parse("10-calico.conflist")).toBe("10-calico.conflist");
});

test("the configuration is frozen, all of it", () => {
  const { config } = parseConfig({ EXCLUDE_NAMESPACES: "a" }, []);
  expect(Object.isFrozen(config)).toBe(true);
  expect(Object.isFrozen(config.repair)).toBe(true);
  expect(Object.isFrozen(config.excludedNamespaces)).toBe(true);
  expect(Object.isFrozen(config.enablementSelectors[0]?.podSelector.requirements)).toBe(true);
});

test("a host root of / names the paths of a bare node", () => {
  const { config } = parseConfig({ AMBIENT_CNI_HOST_ROOT: "/" }, []);
  expect([config.hostRoot, config.procDir]).toEqual(["/", "/proc"]);
});
