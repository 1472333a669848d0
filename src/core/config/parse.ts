// SPDX-License-Identifier: Apache-2.0
import { RUN_FILE } from "../constants.ts";
import { AgentError, messageOf } from "../errors.ts";
import type { Config } from "./config.ts";
import { type Environment, environmentWarnings, fromEnvironment, type Given } from "./env.ts";
import { parseFlags } from "./flags.ts";
import { socketPath } from "./kinds.ts";
import { SETTINGS, type SettingId, TABLE, type Values } from "./table.ts";

export interface ParsedConfig {
  readonly config: Config;
  /** One line for each setting that was given and has no effect; log level info. */
  readonly notes: readonly string[];
  /** One line for each thing that is probably not what was meant; log level warn. */
  readonly warnings: readonly string[];
}

/** Names under which settings were given. */
type Sources = ReadonlyMap<SettingId, string>;

const OWNED_CONFIG_NAME = "02-istio-cni.conflist";
const shown = (value: string): string => JSON.stringify(value.length > 80 ? `${value.slice(0, 77)}...` : value);

/**
 * Resolves flag > environment > default as viper does for install-cni and checks everything.
 * `argv` is without program and script. Pure: the caller passes its environment.
 * @throws AgentError CONFIG_INVALID with every error in one message, a line each
 */
export function parseConfig(env: Environment, argv: readonly string[]): ParsedConfig {
  const flags = parseFlags(argv);
  const errors = [...flags.errors];
  const notes: string[] = [];
  const warnings = environmentWarnings(env);
  const given = new Map<SettingId, string>();
  const later: string[] = [];
  const values: Record<string, unknown> = {};

  for (const [id, setting] of SETTINGS) {
    const source = flagValue(id, flags.given) ?? fromEnvironment(setting, env);
    if (source !== undefined) {
      given.set(id, source.name);
      if (setting.status === "later") later.push(source.name);
      if (setting.status === "accepted")
        notes.push(`${source.name}=${shown(source.value)} has no effect: ${setting.effect}`);
    }
    try {
      values[id] = setting.kind.parse(source?.value ?? setting.fallback);
    } catch (error) {
      errors.push(
        `${source?.name ?? setting.env[0] ?? id}=${shown(source?.value ?? setting.fallback)}: ${messageOf(error)}`,
      );
    }
  }
  fail(errors);
  if (later.length > 0) notes.push(`without effect in this version: ${later.join(", ")}`);
  // Each value was made by the kind of its own row, which is what Values says.
  const config = assemble(values as Values);
  fail(contradictions(config, given));
  warnings.push(...doubts(config, values as Values, given));
  return { config, notes, warnings };
}

function fail(errors: readonly string[]): void {
  if (errors.length === 0) return;
  const count = errors.length === 1 ? "1 error" : `${errors.length} errors`;
  throw new AgentError(
    "CONFIG_INVALID",
    `the configuration has ${count}:\n${errors.map((error) => `  ${error}`).join("\n")}`,
    "see docs/config.md for every setting and its values",
  );
}

/** What a flag says, if it was given; of several, as pflag does, the last one. */
export function flagValue(id: SettingId, given: ReadonlyMap<string, readonly string[]>): Given | undefined {
  const { flag } = TABLE[id];
  const values = flag === undefined ? undefined : given.get(flag);
  if (values === undefined) return undefined;
  return { name: `--${flag}`, value: id === "logTargets" ? values.join(",") : (values.at(-1) ?? "") };
}

const below = (root: string, path: string): string => (root === "/" ? `/${path}` : `${root}/${path}`);

function assemble(values: Values): Config {
  return deepFreeze({
    nodeName: values.nodeName === "" ? values.repairNodeName : values.nodeName,
    podName: values.podName,
    podNamespace: values.podNamespace,
    systemNamespace: values.systemNamespace,
    kubeconfig: values.kubeconfig,
    kubernetesService:
      values.kubernetesHost === "" ? undefined : { host: values.kubernetesHost, port: values.kubernetesPort },

    ambientEnabled: values.ambientEnabled,
    enablementSelectors: values.enablementSelectors,
    excludedNamespaces: values.excludedNamespaces,
    dnsCapture: values.dnsCapture,
    dnsCaptureServers: values.dnsCaptureServers,
    ipv6: values.ipv6,
    excludeOutboundCidrs: values.excludeOutboundCidrs,
    podExcludeOutboundCidrs: values.podExcludeOutboundCidrs,

    sidecarOwnerGroups: { include: values.ownerGroups, exclude: values.ownerGroupsExclude },

    engine: values.engine,
    podEngineAnnotation: values.podEngineAnnotation,
    nativeNftables: values.nativeNftables,
    forceIptablesBinary: values.nativeNftables ? undefined : values.forceIptablesBinary,
    probeSources: values.probeSources,
    probeIpv4: values.probeIpv4,
    probeIpv6: values.probeIpv6,
    awsBranchEni: values.awsBranchEni,
    switchToHostNetns: values.switchToHostNetns,
    drainSeconds: values.drainSeconds,
    existingConnections: values.existingConnections,
    uncaptureOnRemoval: values.uncaptureOnRemoval,
    disableSafeUpgrade: values.disableSafeUpgrade,

    ztunnelSocket: values.ztunnelSocket,
    runDir: values.runDir,
    debugSocket: values.debugSocket ?? below(values.runDir, RUN_FILE.debugSocket),
    hostRoot: values.hostRoot,
    procDir: values.procDir ?? below(values.hostRoot, "proc"),

    cniNetDir: values.cniNetDir ?? below(values.hostRoot, "etc/cni/net.d"),
    cniBinDir: values.cniBinDir ?? below(values.hostRoot, "opt/cni/bin"),
    pluginSourceDir: values.pluginSourceDir,
    cniConfName: values.cniConfName,
    chained: values.chained,
    istioOwnedConfig: values.istioOwnedConfig && values.chained && values.ambientEnabled,
    istioOwnedConfigName: values.istioOwnedConfigName === "" ? OWNED_CONFIG_NAME : values.istioOwnedConfigName,
    cniConfGroupRead: values.cniConfGroupRead,
    agentAway: values.agentAway,

    monitoringPort: values.monitoringPort,
    healthPort: values.healthPort,
    logLevels: values.logLevels,
    logAsJson: values.logAsJson,
    logTargets: values.logTargets,
    memoryLimit: values.memoryLimit,

    repair: {
      enabled: values.repairEnabled,
      repairPods: values.repairPods,
      deletePods: values.repairDeletePods,
      labelPods: values.repairLabelPods,
      labelKey: values.repairLabelKey,
      labelValue: values.repairLabelValue,
      sidecarAnnotation: values.repairSidecarAnnotation,
      initContainerName: values.repairInitContainerName,
      initContainerExitCode: values.repairInitExitCode,
      initContainerTerminationMessage: values.repairInitTerminationMessage,
      labelSelectors: values.repairLabelSelectors,
      fieldSelectors: values.repairFieldSelectors,
      nodeName: values.repairNodeName,
    },
  });
}

/** Values that are right each by itself and cannot stand together. */
function contradictions(config: Config, given: Sources): string[] {
  const errors: string[] = [];
  if (config.ambientEnabled && config.nodeName === "") {
    errors.push('NODE_NAME="": must name this node when AMBIENT_ENABLED is true');
  }
  if (config.repair.labelPods && config.repair.labelKey === "") {
    errors.push('REPAIR_BROKEN_POD_LABEL_KEY="": must name a label when REPAIR_LABEL_PODS is true');
  }
  if (config.monitoringPort > 0 && config.monitoringPort === config.healthPort) {
    errors.push(
      `${given.get("monitoringPort") ?? "MONITORING_PORT"}="${config.monitoringPort}": must differ from AMBIENT_CNI_HEALTH_PORT`,
    );
  }
  if (config.istioOwnedConfig && config.cniConfName === config.istioOwnedConfigName) {
    errors.push(
      `${given.get("cniConfName") ?? "CNI_CONF_NAME"}=${shown(config.cniConfName)}: is the copy that ISTIO_OWNED_CNI_CONFIG writes, not the configuration to copy`,
    );
  }
  try {
    socketPath.parse(`${config.runDir}/${RUN_FILE.pluginSocket}`);
  } catch {
    errors.push(
      `${given.get("runDir") ?? "CNI_AGENT_RUN_DIR"}=${shown(config.runDir)}: too long for the path of a unix socket in it`,
    );
  }
  return errors;
}

function doubts(config: Config, values: Values, given: Sources): string[] {
  const warnings: string[] = [];
  if (values.nativeNftables && values.forceIptablesBinary !== undefined) {
    warnings.push("FORCE_IPTABLES_BINARY is ignored because NATIVE_NFTABLES is true");
  }
  const { nodeName } = config.repair;
  if (nodeName !== "" && nodeName !== config.nodeName) {
    warnings.push(`REPAIR_NODE_NAME=${shown(nodeName)} is another node than NODE_NAME: no sidecar pod is repaired`);
  }
  if (values.istioOwnedConfig && !config.istioOwnedConfig) {
    warnings.push("ISTIO_OWNED_CNI_CONFIG is ignored: it needs CHAINED_CNI_PLUGIN and AMBIENT_ENABLED");
  }
  const { include, exclude } = config.sidecarOwnerGroups;
  if (include !== "*" && exclude.length > 0) {
    warnings.push("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE is ignored because ISTIO_OUTBOUND_OWNER_GROUPS names groups");
  }
  if (given.has("enablementSelectors") && config.enablementSelectors.length === 0) {
    warnings.push("AMBIENT_ENABLEMENT_SELECTOR is empty: no pod belongs to the mesh");
  }
  return warnings;
}

function deepFreeze<T>(value: T): T {
  if (typeof value === "object" && value !== null && !(value instanceof Map)) {
    for (const member of Object.values(value)) deepFreeze(member);
    Object.freeze(value);
  }
  return value;
}
