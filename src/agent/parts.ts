// SPDX-License-Identifier: Apache-2.0
import type { Clock } from "../core/clock.ts";
import type { Config } from "../core/config/config.ts";
import type {
  Cluster,
  Dataplane,
  ExistingConnections,
  Journal,
  Logger,
  Metrics,
  NetnsFinder,
  ProbeExemption,
  SidecarDataplane,
  Ztunnel,
} from "../core/ports.ts";
import type { Nameservers } from "./desire.ts";

/** Everything of the floors below that the agent works with. */
export interface Parts {
  readonly config: Config;
  readonly cluster: Cluster;
  readonly finder: NetnsFinder;
  readonly ztunnel: Ztunnel;
  readonly dataplane: Dataplane;
  readonly probes: ProbeExemption;
  readonly sidecars: SidecarDataplane;
  readonly existing: ExistingConnections;
  readonly nameservers: Nameservers;
  /** Writes what the plugin may rely on while the agent is away: namespaces without a mesh pod. */
  readonly publish: (clearNamespaces: readonly string[]) => Promise<void>;
  /** When an agent last wrote that state on this node since boot (wall clock, ms); undefined = never. */
  readonly lastAliveAt: number | undefined;
  /** What was decided about each pod, for people. */
  readonly decisions: Journal;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly clock: Clock;
}
