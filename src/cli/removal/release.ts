// SPDX-License-Identifier: Apache-2.0
import type { Config } from "../../core/config/config.ts";
import { AgentError, messageOf } from "../../core/errors.ts";
import { limiter } from "../../core/limiter.ts";
import type { EngineName } from "../../core/ports/dataplane.ts";
import type { Logger, Metrics } from "../../core/ports/telemetry.ts";
import { NodeDataplane } from "../../dataplane/dataplane.ts";
import { NodeCgroups } from "../../dataplane/ebpf/cgroups.ts";
import { EbpfEngine } from "../../dataplane/ebpf/engine.ts";
import type { Engine } from "../../dataplane/engine.ts";
import { netfilterEngines } from "../../dataplane/engines.ts";
import type { NativeBinding } from "../../native/binding.ts";
import { HostMounts } from "../../sys/mounts.ts";
import { type Captive, specOf } from "./captives.ts";
import type { Steps } from "./steps.ts";

const CONCURRENCY = 8;
const POLL_MS = 100;

export interface ReleaseParts {
  readonly config: Config;
  readonly binding: NativeBinding;
  readonly logger: Logger;
  readonly metrics: Metrics;
}

/** Takes pods out of the mesh without an agent: no new connection is captured, then open ones may end, then all goes. */
export class Releaser {
  private readonly ebpf: EbpfEngine;
  private readonly engines: readonly Engine[];
  private readonly dataplane: NodeDataplane;

  constructor(private readonly parts: ReleaseParts) {
    const { binding, config, logger, metrics } = parts;
    const mounts = new HostMounts(config.procDir);
    const [bpffs, cgroup2] = [mounts.bpffs(), mounts.cgroup2()];
    this.ebpf = new EbpfEngine({
      binding,
      logger,
      bpffs: bpffs.path === undefined ? { reason: bpffs.reason } : { path: bpffs.path },
      cgroups: cgroup2.path === undefined ? { reason: cgroup2.reason } : new NodeCgroups(cgroup2, config.procDir),
    });
    this.engines = [this.ebpf, ...netfilterEngines(binding, logger, config.forceIptablesBinary)];
    this.dataplane = new NodeDataplane({ binding, logger, metrics, config, engines: this.engines });
  }

  async release(captives: readonly Captive[], steps: Steps): Promise<void> {
    if (!steps.dryRun) await this.prepare(captives);
    const turn = limiter(CONCURRENCY);
    try {
      await Promise.all(
        captives.map(async (captive) => {
          const what = `pod ${captive.pod} (${captive.engines.join(", ") || "unreadable"})`;
          await steps.take(["release", "released"], what, () => this.one(captive, turn));
        }),
      );
    } finally {
      this.dataplane.close();
    }
  }

  /** Engines that pods are captured by must know what works here, to leave open connections what they need. */
  private async prepare(captives: readonly Captive[]): Promise<void> {
    const needed = new Set<EngineName>(captives.flatMap(({ engines }) => engines));
    for (const engine of this.engines) {
      if (engine === this.ebpf || !needed.has(engine.name)) continue;
      await engine.selfTest();
    }
    if (!needed.has("ebpf")) return;
    try {
      this.ebpf.reopen();
    } catch (error) {
      // Pods that only it could release will say so.
      this.parts.logger.warn("the eBPF engine's state can't be opened", { reason: messageOf(error) });
    }
  }

  private async one(captive: Captive, turn: ReturnType<typeof limiter>): Promise<void> {
    const { netns } = captive.resident;
    if (captive.obstacle !== undefined) throw new AgentError("NETNS_UNREADABLE", captive.obstacle);
    const unreachable = this.ebpf.unreachable(netns);
    if (unreachable !== undefined) throw new AgentError("ENGINE_UNREACHABLE", `it ${unreachable}`);
    await turn(() => this.dataplane.drain(netns, specOf(captive, this.parts.config)));
    const until = performance.now() + this.parts.config.drainSeconds * 1000;
    while (performance.now() < until && this.dataplane.proxiedConnections(netns) > 0) {
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    await turn(() => this.dataplane.release(netns));
    if (this.dataplane.present(netns))
      throw new AgentError("RELEASE_INCOMPLETE", "something of ours is still in its netns");
  }
}
