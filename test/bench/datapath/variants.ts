// SPDX-License-Identifier: Apache-2.0
// What is compared: ways in which a caller's connection comes to the proxy.
import { messageOf } from "../../../src/core/errors.ts";
import type { EngineName } from "../../../src/core/ports/dataplane.ts";
import { NodeDataplane } from "../../../src/dataplane/dataplane.ts";
import type { EbpfEngine } from "../../../src/dataplane/ebpf/engine.ts";
import { netfilterEngines } from "../../../src/dataplane/engines.ts";
import { native } from "../../../src/native/load.ts";
import { freshBpffs, LabCgroups, labEbpf } from "../../support/lab-bpf.ts";
import { noMetrics, quiet, specOf } from "../../support/lab-dataplane.ts";
import { enrolByUpstream } from "../../support/lab-upstream.ts";
import type { Ground } from "./ground.ts";

export const VARIANT_NAMES = ["none", "ebpf", "nftables", "iptables", "upstream", "monitored"] as const;
/** Measured when nobody says what. */
export const USUAL_NAMES = VARIANT_NAMES.filter((name) => name !== "monitored");
export type VariantName = (typeof VARIANT_NAMES)[number];

export const TITLES: Readonly<Record<VariantName, string>> = {
  none: "no redirection",
  ebpf: "ebpf",
  nftables: "nftables",
  iptables: "iptables",
  upstream: "upstream's iptables rules",
  monitored: "ebpf, somebody reads its flows",
};

export interface Variant {
  readonly name: VariantName;
  /** False: the caller goes to the proxy's listener by itself, and the proxy is told where to go on. */
  readonly redirects: boolean;
  /** Called before the proxy listens, with its pid. */
  meet(pid: number): Promise<void>;
  /** Called while the proxy listens. */
  capture(ground: Ground): Promise<void>;
  release(ground: Ground): Promise<void>;
  /** Called around each measurement: what is only to happen then. */
  during?(): Disposable;
  close(): void;
}

export interface Absent {
  readonly name: VariantName;
  readonly reason: string;
}

export type IptablesVariant = "nft" | "legacy";

/** The wanted variants, in order; those that this machine or version does not have, with the reason. */
export async function makeVariants(
  wanted: readonly VariantName[],
  iptables: IptablesVariant,
): Promise<{ readonly variants: readonly Variant[]; readonly absent: readonly Absent[] }> {
  const variants: Variant[] = [];
  const absent: Absent[] = [];
  for (const name of wanted) {
    try {
      if (name === "none") variants.push(new WithoutRedirection());
      else if (name === "upstream") variants.push(new UpstreamRules(iptables));
      else if (name === "monitored") variants.push(await MonitoredEbpf.start());
      else variants.push(await EngineVariant.start(name));
    } catch (error) {
      absent.push({ name, reason: messageOf(error) });
    }
  }
  return { variants, absent };
}

class WithoutRedirection implements Variant {
  readonly name = "none";
  readonly redirects = false;

  async meet(): Promise<void> {}

  async capture(ground: Ground): Promise<void> {
    await ground.routeWithoutRedirection();
  }

  async release(): Promise<void> {}

  close(): void {}
}

/** Upstream's rules and routes, by the binaries that it would choose. */
class UpstreamRules implements Variant {
  readonly name = "upstream";
  readonly redirects = true;

  constructor(private readonly iptables: IptablesVariant) {}

  async meet(): Promise<void> {}

  async capture({ pod }: Ground): Promise<void> {
    await enrolByUpstream(pod, `iptables-${this.iptables}`);
  }

  async release(): Promise<void> {}

  close(): void {}
}

/** An engine of ours, through the node's dataplane as the agent uses it. */
class EngineVariant implements Variant {
  readonly redirects = true;

  private constructor(
    readonly name: EngineName,
    private readonly dataplane: NodeDataplane,
  ) {}

  /** @throws AgentError NO_ENGINE */
  static async start(name: EngineName, ebpf?: EbpfEngine): Promise<EngineVariant> {
    return new EngineVariant(name, await startEngine(name, ebpf));
  }

  async meet(pid: number): Promise<void> {
    introduceProxy(this.dataplane, pid);
  }

  async capture(ground: Ground): Promise<void> {
    const spec = specOf(ground.lab);
    await this.dataplane.prepare(ground.pod, spec);
    await this.dataplane.capture(ground.pod, spec);
  }

  async release(ground: Ground): Promise<void> {
    await this.dataplane.release(ground.pod);
  }

  close(): void {
    this.dataplane.close();
  }
}

/** eBPF with a reader of its flows, in this process, who makes lines of them as the agent does. */
class MonitoredEbpf implements Variant {
  readonly name = "monitored";
  readonly redirects = true;
  readonly seen = { told: 0, lost: 0, bytes: 0 };

  private constructor(
    private readonly ebpf: EbpfEngine,
    private readonly variant: EngineVariant,
  ) {}

  /** @throws AgentError NO_ENGINE */
  static async start(): Promise<MonitoredEbpf> {
    // Programs and maps of its own: its pod has the address of the other variant's.
    const ebpf = labEbpf(native(), new LabCgroups(), freshBpffs());
    return new MonitoredEbpf(ebpf, await EngineVariant.start("ebpf", ebpf));
  }

  meet(pid: number): Promise<void> {
    return this.variant.meet(pid);
  }

  capture(ground: Ground): Promise<void> {
    return this.variant.capture(ground);
  }

  release(ground: Ground): Promise<void> {
    return this.variant.release(ground);
  }

  during(): Disposable {
    const { seen } = this;
    const stop = this.ebpf.flows.open(
      ({ flows, lost }) => {
        seen.told += flows.length;
        seen.lost += lost;
        for (const { netns, ...flow } of flows) seen.bytes += JSON.stringify({ ...flow, pod: netns.toString() }).length;
      },
      (error) => {
        throw error;
      },
    );
    return { [Symbol.dispose]: stop };
  }

  close(): void {
    console.error(`flows told: ${this.seen.told}, lost: ${this.seen.lost}`);
    this.variant.close();
  }
}

/** The node's dataplane with this engine and no other. @throws AgentError NO_ENGINE */
export async function startEngine(name: EngineName, ebpf: EbpfEngine = labEbpf(native())): Promise<NodeDataplane> {
  const binding = native();
  const dataplane = new NodeDataplane({
    binding,
    logger: quiet,
    metrics: noMetrics,
    config: { engine: name },
    engines: [ebpf, ...netfilterEngines(binding, quiet, undefined)],
  });
  try {
    await dataplane.start();
  } catch (error) {
    dataplane.close();
    throw error;
  }
  return dataplane;
}

/** The proxy is what ztunnel is elsewhere. */
function introduceProxy(dataplane: NodeDataplane, pid: number): void {
  dataplane.meet({ connection: 1, pid, pidfd: -1 });
}
