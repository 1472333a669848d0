// SPDX-License-Identifier: Apache-2.0
import { type Clock, systemClock } from "../../core/clock.ts";
import type { Stop } from "../../core/disposable.ts";
import { messageOf } from "../../core/errors.ts";
import type { Drift } from "../../core/ports/drift.ts";
import type { NetnsHandle } from "../../core/ports/netns.ts";
import type { PlannedChange } from "../../core/ports/plan.ts";
import type { ExemptPod, ProbeExemption, ProbeHeir } from "../../core/ports/probes.ts";
import type { Logger } from "../../core/ports/telemetry.ts";

/** Probes that announce themselves, as far as the exemption needs to know (ebpf/probers.ts). */
export interface Announcements {
  /** Returns what somebody had taken away, each a sentence. */
  ensure(): readonly string[];
  readonly current: boolean;
  prove(netns: NetnsHandle, ips: readonly string[]): Promise<string | undefined>;
}

export interface UpstreamLeft {
  readonly present: boolean;
  /** Idempotent. */
  remove(): Promise<void>;
}

export interface NodeExemptionOptions {
  /** By a source address that probes wear: for every engine, and every CNI. */
  readonly worn: Pick<ProbeExemption, "start" | "stop"> & {
    plan(uid: string, ips: readonly string[]): readonly PlannedChange[];
    allow(uid: string, ips: readonly string[]): Promise<void>;
    revoke(uid: string, ips: readonly string[]): Promise<void>;
    reconcile(owners: ReadonlyMap<string, readonly string[]>): Promise<void>;
    bequeath(heirs: readonly ProbeHeir[]): Promise<void>;
  };
  /** undefined: the eBPF engine does not work here. Asked after the self-test. */
  readonly announced: () => Announcements | undefined;
  /** What an agent of upstream's has left on the node for the same purpose. */
  readonly upstream?: UpstreamLeft;
  /** Kubelet alone is let through: when it is restarted, that must be noticed before its next probe fails. */
  readonly kubeletOnly: boolean;
  readonly drift: Pick<Drift, "repaired" | "unrepaired">;
  readonly logger: Logger;
  readonly clock?: Clock;
}

const LOOK_MS = 1000;
const UPSTREAM_AGAIN_MS = 60_000;

/**
 * Probes reach captured pods directly. For pods of the eBPF engine the node's connections announce
 * themselves, once it is proved that they arrive as they left; then nothing on the host is touched. For
 * all other pods, and where that does not work, probes wear the probe address.
 */
export class NodeProbeExemption implements ProbeExemption {
  readonly #options: NodeExemptionOptions;
  /** undefined: not proved yet. */
  #announcing: boolean | undefined;
  #proving: Promise<void> | undefined;
  /** Addresses at which probes wear the probe address, and whose they are. */
  readonly #worn = new Map<string, string>();
  /** Pods of which an address may still be worn, since taking it back has failed. */
  readonly #unrevoked = new Set<string>();
  #looking: Stop | undefined;
  #removing: Stop | undefined;
  #stopped = true;

  constructor(options: NodeExemptionOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    this.#stopped = false;
    if (this.#options.announced() === undefined) this.#announcing = false;
    this.#look();
    await this.#options.worn.start();
  }

  plan({ uid, ips, engine }: ExemptPod): readonly PlannedChange[] {
    if (engine === "ebpf" && this.#announcing === true) {
      return [{ what: "on the node", text: "nothing: probes announce themselves" }];
    }
    const worn = this.#options.worn.plan(uid, ips);
    if (engine !== "ebpf" || this.#announcing === false) return worn;
    const proof = "taken back once the captured pod has proved that probes announce themselves";
    return [...worn, { what: "on the node, after capture", text: proof }];
  }

  async allow({ uid, ips, engine }: ExemptPod): Promise<void> {
    if (engine === "ebpf" && this.#announcing === true) return;
    await this.#wear(uid, ips);
  }

  async settle({ uid, ips, engine }: ExemptPod, netns: NetnsHandle): Promise<void> {
    if (engine === "ebpf" && this.#announcing === undefined) {
      this.#proving ??= this.#prove(uid, ips, netns);
      await this.#proving;
    }
    if (engine === "ebpf" && this.#announcing === true) await this.#unwear(uid, ips);
    else await this.#wear(uid, ips);
  }

  async revoke(uid: string, ips: readonly string[]): Promise<void> {
    for (const ip of ips) if (this.#worn.get(ip) === uid) this.#worn.delete(ip);
    this.#unrevoked.add(uid);
    // Also what an agent before us left.
    await this.#options.worn.revoke(uid, ips);
    this.#unrevoked.delete(uid);
  }

  async reconcile(owners: ReadonlyMap<string, ExemptPod & { readonly netns: NetnsHandle }>): Promise<void> {
    const pods = [...owners.values()];
    await this.#succeedUpstream(pods);
    const sample = pods.find(({ engine }) => engine === "ebpf");
    if (sample !== undefined && this.#announcing === undefined) await this.#prove(sample.uid, sample.ips, sample.netns);
    const wearing = pods.filter(({ engine }) => engine !== "ebpf" || this.#announcing !== true);
    this.#worn.clear();
    await this.#options.worn.reconcile(new Map(wearing.map(({ uid, ips }) => [uid, ips])));
    for (const { uid, ips } of wearing) for (const ip of ips) this.#worn.set(ip, uid);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#looking?.();
    this.#removing?.();
    await this.#options.worn.stop();
  }

  /** Announced ones wear the probe address too: no agent will find kubelet's cgroup again when that is restarted. */
  async bequeath(heirs: readonly ProbeHeir[]): Promise<void> {
    this.#stopped = true;
    this.#looking?.();
    this.#removing?.();
    await this.#options.worn.bequeath(heirs);
  }

  /**
   * Upstream's rules go once ours give probes to all pods the same source. Before anything is proved: as long as
   * they are there, no probe arrives as it left.
   */
  async #succeedUpstream(pods: readonly ExemptPod[]): Promise<void> {
    const { upstream, worn, logger } = this.#options;
    if (!upstream?.present) return;
    await worn.reconcile(new Map(pods.map(({ uid, ips }) => [uid, ips])));
    await this.#removeUpstream(upstream, logger);
  }

  /** Tried until it is done: none of what is left does harm meanwhile, for it is without pods. */
  async #removeUpstream(upstream: UpstreamLeft, logger: Logger): Promise<void> {
    try {
      await upstream.remove();
    } catch (error) {
      logger.error("istio-cni's rules of the node can't be removed", { reason: messageOf(error) });
      if (this.#stopped) return;
      const { clock = systemClock } = this.#options;
      this.#removing = clock.after(UPSTREAM_AGAIN_MS, () => void this.#removeUpstream(upstream, logger));
    }
  }

  async #wear(uid: string, ips: readonly string[]): Promise<void> {
    if (ips.every((ip) => this.#worn.get(ip) === uid)) return;
    await this.#options.worn.allow(uid, ips);
    for (const ip of ips) this.#worn.set(ip, uid);
  }

  async #unwear(uid: string, ips: readonly string[]): Promise<void> {
    if (this.#unrevoked.has(uid) || ips.some((ip) => this.#worn.get(ip) === uid)) await this.revoke(uid, ips);
  }

  /** With the first captured pod: while its probes wear another address, their own can't be seen. */
  async #prove(uid: string, ips: readonly string[], netns: NetnsHandle): Promise<void> {
    const { logger } = this.#options;
    const announced = this.#options.announced();
    const reason = await (async () => {
      if (announced === undefined) return "the eBPF engine does not work here";
      await this.revoke(uid, ips);
      return await announced.prove(netns, ips);
    })().catch(messageOf);
    this.#announcing = reason === undefined;
    this.#proving = undefined;
    if (reason === undefined) logger.info("probes announce themselves: nothing on the host is translated for them");
    else logger.warn("probes wear the probe address", { reason });
  }

  #look(): void {
    const { announced, kubeletOnly, clock = systemClock, drift, logger } = this.#options;
    const hooks = announced();
    if (this.#stopped || hooks === undefined) return;
    try {
      const lost = hooks.current ? [] : hooks.ensure();
      drift.unrepaired("probe_hooks", undefined);
      if (lost.length > 0) {
        logger.warn("programs that announce probes were taken away; repaired", { lost });
        drift.repaired("probe_hooks", undefined, lost.join("; "));
      }
    } catch (error) {
      drift.unrepaired("probe_hooks", messageOf(error));
      logger.error("the programs that announce probes can't be attached", { reason: messageOf(error) });
    }
    this.#looking = clock.after(kubeletOnly ? LOOK_MS : 5 * LOOK_MS, () => this.#look());
  }
}
