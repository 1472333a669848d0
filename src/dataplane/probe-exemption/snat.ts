// SPDX-License-Identifier: Apache-2.0
import { type Clock, systemClock } from "../../core/clock.ts";
import type { Config } from "../../core/config/config.ts";
import { HOST_TABLE } from "../../core/constants.ts";
import type { Stop } from "../../core/disposable.ts";
import { messageOf } from "../../core/errors.ts";
import { familyOf } from "../../core/ip.ts";
import type { Drift } from "../../core/ports/drift.ts";
import type { NetnsHandle } from "../../core/ports/netns.ts";
import type { PlannedChange } from "../../core/ports/plan.ts";
import type { ProbeHeir } from "../../core/ports/probes.ts";
import type { Logger } from "../../core/ports/telemetry.ts";
import type { NativeBinding } from "../../native/binding.ts";
import { BranchEni } from "../branch-eni.ts";
import { address } from "../netfilter/values.ts";
import { nft } from "../nftables/nft.ts";
import { removeText } from "../nftables/text.ts";
import { Kubelet } from "./kubelet.ts";
import { changeText, checkedUid, planProbes, tableText } from "./plan.ts";
import { HostTable } from "./table.ts";

export interface SnatOptions {
  readonly binding: NativeBinding;
  readonly logger: Logger;
  readonly drift: Pick<Drift, "repaired">;
  readonly config: Pick<Config, "probeSources" | "probeIpv4" | "probeIpv6" | "awsBranchEni" | "procDir">;
  /** The node's own netns. */
  readonly host: NetnsHandle;
  readonly clock?: Clock;
}

/** Calls within this time share one transaction. */
const BATCH_MS = 3;
/** After somebody's transaction, and between two looks: kube-proxy may commit many per second. */
const LOOK_AFTER_MS = 200;
const LOOK_APART_MS = 1000;
const LOOK_EVERY_MS = 30_000;
/** Until kubelet is found; it runs as root but for exotic set-ups. */
const ASSUMED_KUBELET_UID = 0;

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** Keeps the host's table as wanted. The kernel's elements and their comments are the memory. */
export class SnatExemption {
  readonly #options: SnatOptions;
  readonly #clock: Clock;
  readonly #kubelet: Kubelet;
  readonly #branchEni: BranchEni | undefined;
  readonly #table: HostTable;
  /** What this agent knows to be right; addresses of pods it has not met yet are not in it. */
  readonly #wanted = new Map<string, string>();
  /** Addresses whose element is to be brought in line; undefined = to be removed. */
  readonly #changes = new Map<string, string | undefined>();
  #waiters: Waiter[] = [];
  #timer: Stop | undefined;
  #last: Promise<void> = Promise.resolve();
  #looking: Stop | undefined;
  #lookDue = Number.POSITIVE_INFINITY;
  #lookedAt = Number.NEGATIVE_INFINITY;
  #watching: Stop | undefined;
  #kubeletMissing = false;
  #stopped = true;

  constructor(options: SnatOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#kubelet = new Kubelet(options.config.procDir);
    this.#table = new HostTable(options.binding, options.host);
    this.#branchEni = options.config.awsBranchEni
      ? new BranchEni(options.binding, options.host, options.logger)
      : undefined;
  }

  async start(): Promise<void> {
    this.#stopped = false;
    // Rewritten as a whole, with every element that is there: it may be of an older version, and from
    // now on its rules can be compared with what this kernel made of our text.
    await this.#serial(() => this.#rewrite());
    this.#watching = this.#options.binding.nftWatch(this.#options.host.fd, () => this.#lookAfter(LOOK_AFTER_MS));
    this.#lookAfter(LOOK_EVERY_MS);
  }

  /** What `allow` would write. Reads the kernel. */
  plan(uid: string, ips: readonly string[]): readonly PlannedChange[] {
    const wanted = new Map(ips.map((ip) => [canonical(ip), checkedUid(uid)]));
    const text = changeText(this.#table.owners(), wanted);
    return [
      { what: "nft -f - on the node", text: text === "" ? "nothing: the addresses are in its sets" : text.trimEnd() },
    ];
  }

  async allow(uid: string, ips: readonly string[]): Promise<void> {
    checkedUid(uid);
    for (const ip of ips.map(canonical)) {
      this.#wanted.set(ip, uid);
      this.#changes.set(ip, uid);
      this.#branchEni?.add(ip);
    }
    await this.#batched();
  }

  async revoke(uid: string, ips: readonly string[]): Promise<void> {
    const present = this.#table.owners();
    for (const ip of ips.map(canonical)) {
      if ((this.#wanted.get(ip) ?? present.get(ip)) !== uid) continue;
      this.#wanted.delete(ip);
      this.#changes.set(ip, undefined);
      this.#branchEni?.remove(ip);
    }
    await this.#batched();
  }

  async reconcile(owners: ReadonlyMap<string, readonly string[]>): Promise<void> {
    this.#wanted.clear();
    for (const [uid, ips] of owners) {
      for (const ip of ips.map(canonical)) this.#wanted.set(ip, checkedUid(uid));
    }
    for (const ip of this.#table.owners().keys()) if (!this.#wanted.has(ip)) this.#changes.set(ip, undefined);
    for (const [ip, uid] of this.#wanted) this.#changes.set(ip, uid);
    this.#branchEni?.reconcile([...this.#wanted.keys()]);
    await this.#batched();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#watching?.();
    this.#looking?.();
    this.#timer?.();
    this.#timer = undefined;
    await this.#serial(() => this.#flush());
  }

  /** As stop; exactly these pods' addresses stay. */
  async bequeath(heirs: readonly ProbeHeir[]): Promise<void> {
    await this.stop();
    const owners = new Map<string, string>();
    const ending = new Map<string, number>();
    for (const { uid, ips, seconds } of heirs) {
      for (const ip of ips.map(canonical)) {
        owners.set(ip, checkedUid(uid));
        if (seconds !== undefined) ending.set(ip, seconds);
      }
    }
    this.#branchEni?.reconcile([...owners.keys()]);
    const text = owners.size === 0 ? removeText(HOST_TABLE) : tableText(this.#plan(), owners, ending);
    await this.#serial(() => nft(this.#options.host.fd, text));
  }

  /** Resolves when everything asked for until now is in the kernel. */
  #batched(): Promise<void> {
    if (this.#changes.size === 0) return this.#last;
    const done = new Promise<void>((resolve, reject) => this.#waiters.push({ resolve, reject }));
    this.#timer ??= this.#clock.after(BATCH_MS, () => {
      this.#timer = undefined;
      void this.#serial(() => this.#flush());
    });
    return done;
  }

  async #flush(): Promise<void> {
    const waiters = this.#waiters.splice(0);
    const changes = new Map(this.#changes);
    this.#changes.clear();
    try {
      if (changes.size > 0) await this.#bring(changes);
      for (const { resolve } of waiters) resolve();
    } catch (error) {
      for (const { reject } of waiters) reject(error);
    }
  }

  async #bring(changes: ReadonlyMap<string, string | undefined>): Promise<void> {
    if (this.#table.differences(this.#plan()).length > 0) return await this.#rewrite(changes);
    const text = changeText(this.#table.owners(), changes);
    if (text === "") return;
    try {
      await nft(this.#options.host.fd, text);
    } catch {
      // Somebody changed the table between our look and our transaction.
      await this.#rewrite(changes);
    }
  }

  /** Puts the table in place with all that is in it and all that is wanted. */
  async #rewrite(changes: ReadonlyMap<string, string | undefined> = new Map()): Promise<void> {
    const owners = new Map([...this.#table.owners(), ...this.#wanted]);
    for (const [ip, uid] of changes) if (uid === undefined) owners.delete(ip);
    const plan = this.#plan();
    await nft(this.#options.host.fd, tableText(plan, owners));
    this.#table.remember(plan);
  }

  /** An earlier look that is due already is not put off: changes may come without a pause. */
  #lookAfter(ms: number): void {
    const due = Math.max(this.#clock.now() + ms, this.#lookedAt + LOOK_APART_MS);
    if (this.#stopped || due >= this.#lookDue) return;
    this.#looking?.();
    this.#lookDue = due;
    this.#looking = this.#clock.after(due - this.#clock.now(), () => {
      this.#lookDue = Number.POSITIVE_INFINITY;
      this.#lookedAt = this.#clock.now();
      void this.#serial(() => this.#look());
      this.#lookAfter(LOOK_EVERY_MS);
    });
  }

  /** Reads the kernel, no fork; repairs what another tool removed. */
  async #look(): Promise<void> {
    try {
      const differences = [...this.#table.differences(this.#plan())];
      const present = this.#table.owners();
      // What waits for its batch is not there yet; a batch in flight is over, for looks take turns with it.
      const lost = [...this.#wanted].filter(([ip, uid]) => present.get(ip) !== uid && !this.#changes.has(ip));
      if (differences.length === 0 && lost.length > 0) differences.push(`${lost.length} addresses are missing`);
      if (differences.length === 0) return;
      this.#options.logger.warn("the probe exemption differs from what it should be; repairing", { differences });
      await this.#rewrite();
      this.#options.drift.repaired("probes", undefined, differences.join("; "));
    } catch (error) {
      this.#options.logger.error("the probe exemption can't be checked or repaired", { reason: messageOf(error) });
    }
  }

  #plan() {
    const { probeSources, probeIpv4, probeIpv6 } = this.#options.config;
    const uid = probeSources === "host" ? undefined : this.#kubeletUid();
    return planProbes({ uid, ipv4: probeIpv4, ipv6: probeIpv6 });
  }

  #kubeletUid(): number {
    const uid = this.#kubelet.uid();
    if ((uid === undefined) !== this.#kubeletMissing) {
      this.#kubeletMissing = uid === undefined;
      if (uid === undefined) {
        this.#options.logger.warn("no kubelet among the node's processes; taking it to run as root", {
          procDir: this.#options.config.procDir,
          remedy: "set AMBIENT_CNI_PROBE_SOURCES=host if probes come from another program",
        });
      } else {
        this.#options.logger.info("found kubelet", { uid });
      }
    }
    return uid ?? ASSUMED_KUBELET_UID;
  }

  /** One transaction after the other. */
  #serial(task: () => Promise<void>): Promise<void> {
    const run = this.#last.then(task);
    this.#last = run.catch(() => undefined);
    return run;
  }
}

function canonical(ip: string): string {
  return address(ip, familyOf(ip));
}
