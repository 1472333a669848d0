// SPDX-License-Identifier: Apache-2.0
import type { EngineName } from "../ports/dataplane.ts";
import type { EnablementSelector, LabelSelector } from "../selector.ts";
import type { FieldRequirement } from "../selector-text.ts";

/** Everything a person can set, resolved (flag > environment > default), validated and frozen. */
export interface Config {
  // identity
  readonly nodeName: string;
  readonly podName: string;
  readonly podNamespace: string;
  readonly systemNamespace: string;
  /** A kubeconfig in place of the service account. */
  readonly kubeconfig: string | undefined;
  /** API server in the cluster; undefined outside one. */
  readonly kubernetesService: { readonly host: string; readonly port: number } | undefined;

  // mesh
  readonly ambientEnabled: boolean;
  readonly enablementSelectors: readonly EnablementSelector[];
  readonly excludedNamespaces: readonly string[];
  readonly dnsCapture: boolean;
  readonly dnsCaptureServers: "all" | "resolvconf";
  readonly ipv6: boolean;
  readonly excludeOutboundCidrs: readonly string[];
  /** Whether pods may name CIDRs of their own by annotation. */
  readonly podExcludeOutboundCidrs: boolean;

  // sidecars
  /** Groups whose outbound traffic goes to the sidecar: all but `exclude`, or only `include`. */
  readonly sidecarOwnerGroups: { readonly include: "*" | readonly number[]; readonly exclude: readonly number[] };

  // dataplane
  readonly engine: "auto" | EngineName;
  readonly podEngineAnnotation: boolean;
  readonly nativeNftables: boolean;
  readonly forceIptablesBinary: "legacy" | "nft" | undefined;
  readonly probeSources: "kubelet" | "host";
  readonly probeIpv4: string;
  readonly probeIpv6: string;
  readonly awsBranchEni: boolean;
  /** The agent has a netns of its own: the host's is that of pid 1 in procDir. Else its own is the host's. */
  readonly switchToHostNetns: boolean;
  readonly drainSeconds: number;
  readonly existingConnections: "keep" | "reset";
  readonly uncaptureOnRemoval: boolean;
  readonly disableSafeUpgrade: boolean;

  // paths and sockets
  readonly ztunnelSocket: string;
  readonly runDir: string;
  readonly debugSocket: string;
  /** Prefix of the host's file system as mounted here: "/host" in the DaemonSet. */
  readonly hostRoot: string;
  /** The node's proc: "/host/proc". */
  readonly procDir: string;

  // installer
  readonly cniNetDir: string;
  readonly cniBinDir: string;
  readonly pluginSourceDir: string;
  readonly cniConfName: string;
  readonly chained: boolean;
  /** Already false where it can have no effect: not chained, or ambient off. */
  readonly istioOwnedConfig: boolean;
  readonly istioOwnedConfigName: string;
  readonly cniConfGroupRead: boolean;
  readonly agentAway: "namespace" | "strict";

  // telemetry
  readonly monitoringPort: number;
  readonly healthPort: number;
  readonly logLevels: ReadonlyMap<string, LogLevel>;
  readonly logAsJson: boolean;
  readonly logTargets: readonly string[];
  /** GOMEMLIMIT in bytes. */
  readonly memoryLimit: number | undefined;

  // repair (sidecar pods)
  readonly repair: RepairConfig;
}

export const LOG_LEVELS = ["debug", "info", "warn", "error", "fatal", "none"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export interface RepairConfig {
  readonly enabled: boolean;
  readonly repairPods: boolean;
  readonly deletePods: boolean;
  readonly labelPods: boolean;
  readonly labelKey: string;
  readonly labelValue: string;
  readonly sidecarAnnotation: string;
  readonly initContainerName: string;
  readonly initContainerExitCode: number;
  readonly initContainerTerminationMessage: string;
  readonly labelSelectors: LabelSelector;
  readonly fieldSelectors: readonly FieldRequirement[];
  /** Only pods of this node; empty: of the agent's own, which are all it knows. */
  readonly nodeName: string;
}
