// SPDX-License-Identifier: Apache-2.0
// A node where pods, ztunnel and the agent have cgroups of their own, as they have where all of them are
// containers in one cgroup2 hierarchy. This process plays agent and ztunnel in turns: a socket belongs to the
// cgroup that its maker was in. Applications are children in the pods' cgroup.
import { readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { CaptureSpec, EngineName } from "../../src/core/ports/dataplane.ts";
import { NodeDataplane } from "../../src/dataplane/dataplane.ts";
import type { EbpfEngine } from "../../src/dataplane/ebpf/engine.ts";
import { native } from "../../src/native/load.ts";
import type { HeldNetns } from "../../src/native/netns.ts";
import type { Cgroup } from "../../src/sys/cgroup.ts";
import { LabCgroups, labEbpf, makeCgroup } from "./lab-bpf.ts";
import { noMetrics, quiet } from "./lab-dataplane.ts";

class SplitCgroups extends LabCgroups {
  constructor(
    pods: Cgroup,
    ztunnel: Cgroup,
    private readonly agent: Cgroup,
  ) {
    super(pods, ztunnel);
  }
  override withId(id: bigint): Cgroup | undefined {
    return id === this.agent.id ? this.agent : super.withId(id);
  }
}

export class SplitNode {
  readonly pods = makeCgroup("pods");
  readonly ztunnel = makeCgroup("ztunnel");
  /** Neither a pod's nor ztunnel's: who gets into a pod's netns from here is seen by no hook. */
  readonly elsewhere = makeCgroup("elsewhere");
  readonly #agent = makeCgroup("agent");
  readonly #home = join(LabCgroups.root.path, ownPath());
  readonly engine: EbpfEngine = labEbpf(native(), new SplitCgroups(this.pods, this.ztunnel, this.#agent));
  readonly dataplane = new NodeDataplane({
    binding: native(),
    logger: quiet,
    metrics: noMetrics,
    config: { engine: "auto" },
    engines: [this.engine],
  });

  /** This process is ztunnel when it returns. */
  static async start(): Promise<SplitNode> {
    const node = new SplitNode();
    enter(node.#agent);
    await node.dataplane.start();
    enter(node.ztunnel);
    return node;
  }

  /** As the agent does it, with what is already open in the netns for ztunnel's listeners. */
  async capture(netns: HeldNetns, spec: CaptureSpec): Promise<EngineName> {
    return await this.as(this.#agent, () => this.dataplane.capture(netns, spec));
  }

  /** Sockets that are made meanwhile are those of a process in `cgroup`, ztunnel's too. */
  async as<T>(cgroup: Cgroup, made: () => T | Promise<T>): Promise<T> {
    enter(cgroup);
    try {
      return await made();
    } finally {
      enter(this.ztunnel);
    }
  }

  close(): void {
    this.dataplane.close();
    enter({ path: this.#home, id: 0n });
    for (const { path } of [this.pods, this.ztunnel, this.elsewhere, this.#agent]) rmdirSync(path);
  }
}

function enter({ path }: Cgroup): void {
  writeFileSync(join(path, "cgroup.procs"), String(process.pid));
}

function ownPath(): string {
  return /^0::(.*)$/m.exec(readFileSync("/proc/self/cgroup", "utf8"))?.[1] ?? "/";
}
