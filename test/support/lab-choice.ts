// SPDX-License-Identifier: Apache-2.0
// A dataplane with several engines, which says what it chose and why.
import type { EngineName } from "../../src/core/ports/dataplane.ts";
import { NodeDataplane } from "../../src/dataplane/dataplane.ts";
import type { Cgroups } from "../../src/dataplane/ebpf/cgroups.ts";
import { EbpfEngine, type EbpfOptions } from "../../src/dataplane/ebpf/engine.ts";
import { NftablesEngine } from "../../src/dataplane/nftables/engine.ts";
import { native } from "../../src/native/load.ts";
import { LabCgroups } from "./lab-bpf.ts";
import { LogRecorder, MetricRecorder } from "./recorder.ts";

export interface ChoiceOptions {
  readonly bpffs: EbpfOptions["bpffs"];
  readonly cgroups?: Cgroups;
  /** As the node's setting. */
  readonly engine?: "auto" | EngineName;
}

/** Started, with ebpf and nftables. */
export class ChoiceLab {
  readonly log = new LogRecorder();
  readonly metrics = new MetricRecorder();
  readonly ebpf: EbpfEngine;
  readonly dataplane: NodeDataplane;

  private constructor({ bpffs, cgroups = new LabCgroups(), engine = "auto" }: ChoiceOptions) {
    const binding = native();
    this.ebpf = new EbpfEngine({ binding, logger: this.log, bpffs, cgroups });
    const engines = [this.ebpf, new NftablesEngine(binding, this.log)];
    this.dataplane = new NodeDataplane({
      binding,
      logger: this.log,
      metrics: this.metrics,
      config: { engine },
      engines,
    });
  }

  static async start(options: ChoiceOptions): Promise<ChoiceLab> {
    const lab = new ChoiceLab(options);
    await lab.dataplane.start();
    return lab;
  }

  /** Reasons that were logged for pods that have another engine than the node's. */
  get reasons(): string[] {
    return this.log.lines
      .filter(({ message }) => message === "a pod has another engine than the node's")
      .map(({ fields }) => String(fields.reason));
  }

  /** Counted fallbacks, all labels together. */
  get fallbacks(): Record<string, number> {
    return Object.fromEntries(
      [...this.metrics.counts].filter(([name]) => name.startsWith("ambient_cni_engine_fallbacks_total")),
    );
  }
}
