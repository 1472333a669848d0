// SPDX-License-Identifier: Apache-2.0
// What is compared: ways in which a caller's connection comes to the proxy.
import { messageOf } from "../../../src/core/errors.ts";
import type { EngineName } from "../../../src/core/ports/dataplane.ts";
import { NodeDataplane } from "../../../src/dataplane/dataplane.ts";
import { netfilterEngines } from "../../../src/dataplane/engines.ts";
import { native } from "../../../src/native/load.ts";
import { labEbpf } from "../../support/lab-bpf.ts";
import { noMetrics, quiet, specOf } from "../../support/lab-dataplane.ts";
import { enrolByUpstream } from "../../support/lab-upstream.ts";
import type { Ground } from "./ground.ts";

export const VARIANT_NAMES = ["none", "ebpf", "nftables", "iptables", "upstream"] as const;
export type VariantName = (typeof VARIANT_NAMES)[number];

export const TITLES: Readonly<Record<VariantName, string>> = {
  none: "no redirection",
  ebpf: "ebpf",
  nftables: "nftables",
  iptables: "iptables",
  upstream: "upstream's iptables rules",
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
  static async start(name: EngineName): Promise<EngineVariant> {
    return new EngineVariant(name, await startEngine(name));
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

/** The node's dataplane with this engine and no other. @throws AgentError NO_ENGINE */
export async function startEngine(name: EngineName): Promise<NodeDataplane> {
  const binding = native();
  const dataplane = new NodeDataplane({
    binding,
    logger: quiet,
    metrics: noMetrics,
    config: { engine: name },
    engines: [labEbpf(binding), ...netfilterEngines(binding, quiet, undefined)],
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
