// SPDX-License-Identifier: Apache-2.0
import type { Clock } from "../core/clock.ts";
import type { Config } from "../core/config/config.ts";
import type { Cluster } from "../core/ports/cluster.ts";
import type { Dataplane, ExistingConnections } from "../core/ports/dataplane.ts";
import type { Drift } from "../core/ports/drift.ts";
import type { Journal } from "../core/ports/journal.ts";
import type { ManualClaims } from "../core/ports/manual.ts";
import type { NetnsFinder } from "../core/ports/netns.ts";
import type { ProbeExemption } from "../core/ports/probes.ts";
import type { SidecarDataplane } from "../core/ports/sidecar.ts";
import type { Logger, Metrics } from "../core/ports/telemetry.ts";
import type { Ztunnel, ZtunnelProcesses } from "../core/ports/ztunnel.ts";
import type { Nameservers } from "./desire.ts";

/** Everything of the floors below that the agent works with. */
export interface Parts {
  readonly config: Config;
  readonly cluster: Cluster;
  readonly finder: NetnsFinder;
  readonly ztunnel: Ztunnel;
  readonly ztunnelProcesses: ZtunnelProcesses;
  readonly dataplane: Dataplane;
  readonly probes: ProbeExemption;
  readonly sidecars: SidecarDataplane;
  readonly existing: ExistingConnections;
  readonly nameservers: Nameservers;
  /** Writes what the plugin may rely on while the agent is away: namespaces without a mesh pod. */
  readonly publish: (clearNamespaces: readonly string[]) => Promise<void>;
  /** When an agent last wrote that state on this node since boot (wall clock, ms); undefined = never. */
  readonly lastAliveAt: number | undefined;
  /** What was captured by hand, for the next agent. */
  readonly claims: ManualClaims;
  /** What was decided about each pod, for people. */
  readonly decisions: Journal;
  /** What others had changed and we put right. */
  readonly drift: Drift;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly clock: Clock;
}
