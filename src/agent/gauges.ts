// SPDX-License-Identifier: Apache-2.0
import type { EngineTest } from "../core/ports/dataplane.ts";
import { type Astray, astrayOf, census, type PodStatus } from "./census.ts";
import type { Parts } from "./parts.ts";
import type { KeyedQueue } from "./queue.ts";
import type { Roster } from "./roster.ts";
import type { SidecarDrift } from "./sidecar-drift.ts";
import type { VerdictTally } from "./verdict-tally.ts";

/** A gauge with labels: groups that have emptied go to 0, they don't vanish. */
class Groups {
  private readonly known = new Map<string, Readonly<Record<string, string>>>();

  constructor(
    private readonly parts: Pick<Parts, "metrics">,
    private readonly set: (metrics: Parts["metrics"], value: number, labels: Readonly<Record<string, string>>) => void,
  ) {}

  update(all: Iterable<Readonly<Record<string, string>>>): void {
    const counts = new Map<string, number>();
    for (const labels of all) {
      const key = JSON.stringify(labels);
      this.known.set(key, labels);
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    for (const [key, labels] of this.known) this.set(this.parts.metrics, counts.get(key) ?? 0, labels);
  }
}

/** What is measured when somebody asks, and not when it changes. */
export class Gauges {
  private readonly pods: Groups;
  private readonly engines: Groups;
  private readonly astray: Groups;
  private readonly redirections: Groups;

  constructor(
    private readonly parts: Parts,
    private readonly roster: Roster,
    private readonly queue: KeyedQueue,
    private readonly verdicts: VerdictTally,
    private readonly sidecars: SidecarDrift,
  ) {
    this.pods = new Groups(parts, (metrics, value, labels) => metrics.set("ambient_cni_pods", value, labels));
    this.engines = new Groups(parts, (metrics, value, labels) =>
      metrics.set("ambient_cni_captured_pods", value, labels),
    );
    this.redirections = new Groups(parts, (metrics, value, labels) =>
      metrics.set("ambient_cni_sidecar_pods", value, labels),
    );
    this.astray = new Groups(parts, (metrics, value, labels) => metrics.set("ambient_cni_astray_pods", value, labels));
  }

  /** Which engines work on this node, told once. */
  proved(tests: readonly EngineTest[]): void {
    const { dataplane, logger, metrics } = this.parts;
    for (const { engine, works, reason, losses, milliseconds } of tests) {
      const chosen = works && engine === dataplane.engine ? 1 : 0;
      metrics.set("ambient_cni_engine", chosen, { engine, reason: reason ?? "" });
      metrics.set("ambient_cni_self_test_success", works ? 1 : 0, { engine });
      metrics.set("ambient_cni_self_test_seconds", milliseconds / 1000, { engine });
      metrics.set("ambient_cni_self_test_losses", losses.length, { engine });
      if (!works) logger.info("an engine does not work on this node", { engine, reason });
    }
  }

  /** Looks into caches, and into the kernel for counters, for a bounded time. */
  update(): void {
    const { metrics, cluster } = this.parts;
    const began = performance.now();
    const all = census(this.parts, this.roster);
    this.pods.update(all.map(({ state, reason }) => ({ state, reason })));
    this.engines.update(all.flatMap(({ engine }) => (engine === undefined ? [] : [{ engine }])));
    this.astray.update(all.flatMap(astrayLabels));
    this.redirections.update(all.flatMap((pod) => this.redirectionOf(pod)));
    metrics.set(
      "ambient_cni_existing_connections",
      all.reduce((sum, { existing }) => sum + existing, 0),
    );
    metrics.set("ambient_cni_queue_depth", this.queue.depth);
    metrics.set("ambient_cni_queue_oldest_seconds", this.queue.oldestMs / 1000);
    metrics.set("ambient_cni_queue_sleeping", this.queue.sleeping);
    for (const { resource, watchAgeSeconds } of cluster.status()) {
      metrics.set("ambient_cni_kube_watch_age_seconds", watchAgeSeconds ?? 0, { resource });
    }
    this.verdicts.read();
    metrics.set("ambient_cni_verdicts_age_seconds", this.verdicts.age / 1000);
    metrics.set("ambient_cni_measure_seconds", (performance.now() - began) / 1000);
  }

  private redirectionOf({ uid, state, phase }: PodStatus): { redirection: string }[] {
    if (state !== "sidecar" || phase !== "Running") return [];
    return [{ redirection: this.sidecars.of(uid)?.word ?? "unknown" }];
  }
}

function astrayLabels(pod: PodStatus): { kind: Astray; reason: string }[] {
  const kind = astrayOf(pod);
  return kind === undefined ? [] : [{ kind, reason: pod.reason }];
}
