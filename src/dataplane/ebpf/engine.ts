// SPDX-License-Identifier: Apache-2.0

import { AgentError, messageOf } from "../../core/errors.ts";
import type { CaptureSpec, EngineTest, Observation } from "../../core/ports/dataplane.ts";
import type { FlowSource } from "../../core/ports/flows.ts";
import type { NetnsHandle, NetnsId } from "../../core/ports/netns.ts";
import type { PlannedChange } from "../../core/ports/plan.ts";
import type { Logger } from "../../core/ports/telemetry.ts";
import type { ZtunnelPeer } from "../../core/ports/ztunnel.ts";
import { VERDICTS, type Verdict, type VerdictCounts } from "../../core/verdicts.ts";
import type { NativeBinding, SocketInfo } from "../../native/binding.ts";
import type { Engine, EngineState } from "../engine.ts";
import { glance } from "../glance.ts";
import type { PlanMode } from "../netfilter/mode.ts";
import { isBehindEbpf } from "../proxied.ts";
import { ALL_LETTERS } from "../sysctls.ts";
import { plannedAttachments, podInterface } from "./attachments.ts";
import type { Cgroups } from "./cgroups.ts";
import { ineligibility } from "./eligible.ts";
import { Entries } from "./entries.ts";
import { FlowReader } from "./flows.ts";
import { EbpfNode, type EbpfNodeOptions } from "./node.ts";
import { orphanedCapture } from "./orphan.ts";
import { entryText, ipOf, modeOf, planText } from "./pod.ts";
import { ProberHooks, type ProberOptions } from "./probers.ts";
import { selfTest } from "./selftest.ts";
import { verifyCapture } from "./verify.ts";

export interface EbpfOptions {
  readonly binding: NativeBinding;
  readonly logger: Logger;
  /** Where the node's bpffs is reached, or why it is not. */
  readonly bpffs: { readonly path: string } | { readonly reason: string };
  /** The node's cgroup2 hierarchy, or why it is not reached. */
  readonly cgroups: Cgroups | { readonly reason: string };
  readonly clock?: EbpfNodeOptions["clock"];
  readonly version?: EbpfNodeOptions["version"];
}

/** Capture at connect() and at the pod's interface: no netfilter, no conntrack. */
export class EbpfEngine implements Engine {
  readonly name = "ebpf";
  readonly translates = false;
  /** Without them the application's answers would not come back to `lo`. */
  readonly needsSysctls = true;
  #node: EbpfNode | undefined;
  #works = false;
  #probers: ProberHooks | undefined;
  readonly #cookies = new WeakMap<NetnsHandle, bigint>();
  readonly #entries: Entries;

  constructor(private readonly options: EbpfOptions) {
    this.#entries = new Entries(
      options.binding,
      () => this.#opened,
      (netns) => this.#cookie(netns),
    );
  }

  async selfTest(): Promise<EngineTest> {
    const began = performance.now();
    const losses: string[] = [];
    const result = (reason: string | undefined): EngineTest => ({
      engine: this.name,
      works: reason === undefined,
      reason,
      losses,
      milliseconds: performance.now() - began,
    });
    try {
      const node = this.#open();
      node.hooks.ensure();
      node.ztunnels.adopt();
      // An agent that was killed while somebody read flows: each connection would ask the time for nobody.
      node.bpf.tellUntil(0n);
      losses.push(...(await selfTest(this.options.binding, node, this)));
      node.collect();
      this.#works = true;
      return result(undefined);
    } catch (error) {
      this.#works = false;
      return result(messageOf(error));
    }
  }

  /**
   * For who only takes pods out: what an agent has pinned is opened, and nothing is attached or tested.
   * @throws AgentError NO_ENGINE with the reason why it can't be reached; NativeError
   */
  reopen(): void {
    this.#open();
  }

  plan(spec: CaptureSpec): string {
    return planText(spec);
  }

  planned(netns: NetnsHandle, spec: CaptureSpec, state: EngineState): readonly PlannedChange[] {
    const link = podInterface(this.options.binding, netns.fd);
    if (link === undefined) throw new AgentError("POD_NOT_CAPTURABLE", `${spec.pod} has no single interface`);
    const pod = this.#entries.planned(netns, spec, "captured", state);
    const entry = { what: `BPF map entry of netns cookie ${this.#cookie(netns)}`, text: entryText(pod) };
    return [...plannedAttachments(pod, link), entry];
  }

  ineligible(netns: NetnsHandle, spec: CaptureSpec): string | undefined {
    return ineligibility(this.options.binding, netns.fd, spec);
  }

  present(netns: NetnsHandle): boolean {
    const node = this.#node;
    if (node === undefined) return false;
    const cookie = this.#cookie(netns);
    return node.bpf.podRead(cookie) !== undefined || node.attachments.present(cookie) || node.others.holds(cookie);
  }

  mode(netns: NetnsHandle): PlanMode | undefined {
    if (!this.present(netns)) return undefined;
    const node = this.#opened;
    const cookie = this.#cookie(netns);
    const pod = node.bpf.podRead(cookie);
    return pod === undefined || node.others.holds(cookie) ? "captured" : modeOf(pod);
  }

  state(netns: NetnsHandle): EngineState | undefined {
    const pod = this.#node?.bpf.podRead(this.#cookie(netns));
    return pod === undefined ? undefined : { sysctls: pod.sysctls, beside: pod.beside };
  }

  observe(netns: NetnsHandle, spec: CaptureSpec): Observation {
    if (!this.present(netns)) return { mode: "absent", engine: undefined, differences: [] };
    const node = this.#opened;
    const cookie = this.#cookie(netns);
    const found = node.bpf.podRead(cookie);
    if (found === undefined) return this.#differs(["the pod's entry is missing: its connections are not captured"]);
    const mode = modeOf(found);
    const link = podInterface(this.options.binding, netns.fd);
    const wanted = this.#entries.planned(netns, spec, mode, found);
    const differences: string[] = [];
    if (found.plan !== wanted.plan)
      differences.push("the pod's entry was made for other settings of the pod, or by another version");
    else differences.push(...node.bpf.podDifferences(cookie, wanted).map((name) => `the pod's ${name} was changed`));
    if (link === undefined) differences.push("the pod has no single interface any more");
    else differences.push(...node.attachments.differences(netns.fd, inodeOf(netns.id), cookie, wanted, link));
    differences.push(...node.hooks.missing(), ...node.ztunnels.missing());
    if (differences.length > 0) return this.#differs(differences);
    return { mode: mode === "captured" ? "captured" : "draining", engine: this.name, differences: [] };
  }

  async apply(netns: NetnsHandle, spec: CaptureSpec, state: EngineState): Promise<void> {
    const node = this.#opened;
    const cookie = this.#cookie(netns);
    const link = podInterface(this.options.binding, netns.fd);
    if (link === undefined) throw new AgentError("POD_NOT_CAPTURABLE", `${spec.pod} has no single interface`);
    if (node.hooks.missing().length > 0) node.hooks.ensure();
    node.ztunnels.ensure();
    const planned = this.#entries.planned(netns, spec, "captured", state);
    const fresh = node.bpf.podRead(cookie) === undefined;
    const attached = node.attachments.present(cookie);
    // One write turns both directions: by half of it connections hang, and what another engine redirects is refused.
    // What programs of ours turn already stays turned: with nobody in charge for a moment, SYNs pass ztunnel by.
    const waits = fresh && !attached && !node.others.holds(cookie);
    // An agent that was killed while it wrote the pod may have left an exclusion that no longer holds.
    if (fresh && attached) node.bpf.podDelete(cookie);
    node.attachments.attachLookup(netns.fd, cookie, planned);
    node.ztunnels.ensureListeners(netns.fd, cookie);
    node.bpf.podWrite(cookie, waits ? { ...planned, retiring: true } : planned);
    node.attachments.attachInterface(netns.fd, link);
    // Somebody else captures the pod: proved before anything is turned, since until then nothing is lost.
    if (waits && state.beside === true) await this.verify(netns, spec);
    if (waits) node.bpf.podFlags(cookie, planned);
    node.remember(cookie);
  }

  async verify(netns: NetnsHandle, spec: CaptureSpec): Promise<void> {
    const { binding } = this.options;
    const { families } = glance(binding, netns.fd);
    const own = families.filter((family) => ipOf(spec, family) !== "" && (family === 4 || spec.ipv6));
    await verifyCapture(binding, netns.fd, own);
  }

  async drain(netns: NetnsHandle, spec: CaptureSpec): Promise<void> {
    await this.#setMode(netns, spec, "draining");
  }

  async retire(netns: NetnsHandle, spec: CaptureSpec): Promise<void> {
    await this.#setMode(netns, spec, "retiring");
  }

  alone(netns: NetnsHandle, spec: CaptureSpec): void {
    const { bpf } = this.#opened;
    const cookie = this.#cookie(netns);
    const found = bpf.podRead(cookie);
    if (found?.beside !== true) return;
    bpf.podFlags(cookie, this.#entries.planned(netns, spec, modeOf(found), { sysctls: found.sysctls }));
  }

  keepsAlive(sockets: readonly SocketInfo[]): number {
    return sockets.filter(isBehindEbpf).length;
  }

  async remove(netns: NetnsHandle): Promise<void> {
    const node = this.#node;
    if (node === undefined) return;
    const cookie = this.#cookie(netns);
    node.attachments.detachInterfaces(netns.fd);
    node.bpf.podDelete(cookie);
    node.others.forget(cookie);
    node.attachments.detachLookup(netns.fd, cookie);
    node.remember(cookie);
  }

  meet(peer: ZtunnelPeer): void {
    this.#node?.ztunnels.meet(peer);
  }

  listenersOpened(netns: NetnsHandle): void {
    this.#node?.ztunnels.ensureListeners(netns.fd, this.#cookie(netns));
  }

  /** Removes what belongs to netns that are gone. */
  collect(): void {
    this.#node?.collect();
  }

  vacate(inUse: ReadonlySet<NetnsId>): string | undefined {
    const inodes = new Set([...inUse].map(inodeOf));
    const captured = this.#node?.vacate((inode) => inodes.has(inode)) ?? 0;
    if (captured > 0) return `programs and maps of ebpf, for ${captured} pods`;
    this.#node = undefined;
    return undefined;
  }

  unreachable(netns: NetnsHandle): string | undefined {
    if (this.#node !== undefined) return undefined;
    const { binding, bpffs } = this.options;
    const why = "reason" in bpffs ? bpffs.reason : "the self-test failed";
    return orphanedCapture(binding, netns.fd) ? `is captured by eBPF, which can't be reached: ${why}` : undefined;
  }

  /** What the programs counted for this pod, by verdict. */
  counters(netns: NetnsHandle): Readonly<Record<string, number>> {
    return this.#node?.bpf.counters(this.#cookie(netns)) ?? {};
  }

  /** Single flows, while they are read. */
  get flows(): FlowSource {
    const node = () => this.#node;
    return {
      get available() {
        return node() !== undefined;
      },
      open: (told, failed) => {
        const reader = new FlowReader(this.#opened.bpf, told, failed, this.options.clock);
        return () => reader.close();
      },
      keyOf: (netns) => this.#cookie(netns),
    };
  }

  verdicts(netns: NetnsHandle): VerdictCounts {
    const counted = this.counters(netns);
    const counts: Partial<Record<Verdict, number>> = {};
    for (const verdict of VERDICTS) {
      const count = counted[verdict] ?? 0;
      if (count > 0) counts[verdict] = count;
    }
    return counts;
  }

  mendShared(): readonly string[] {
    const node = this.#node;
    if (node === undefined || !this.#works) return [];
    const missing = [...node.unpinned(), ...node.hooks.missing(), ...node.ztunnels.missing()];
    if (missing.length === 0) return [];
    node.hooks.ensure();
    node.ztunnels.ensure();
    return missing;
  }

  close(): void {
    this.#node?.close();
    this.#node = undefined;
  }

  /** Hooks for connections of the node itself; undefined where the engine does not work. */
  probers(options: Pick<ProberOptions, "host" | "config" | "kubelet">): ProberHooks | undefined {
    const { binding, logger, cgroups } = this.options;
    const node = this.#node;
    if (!this.#works || node?.own === undefined || "reason" in cgroups) return undefined;
    this.#probers ??= new ProberHooks({ ...options, binding, logger, cgroups, bpf: node.bpf, own: node.own });
    return this.#probers;
  }

  /** For the self-test and for tests. @throws AgentError NO_ENGINE before it. */
  get node(): EbpfNode {
    return this.#opened;
  }

  async #setMode(netns: NetnsHandle, spec: CaptureSpec, mode: PlanMode): Promise<void> {
    const { bpf, others } = this.#opened;
    const cookie = this.#cookie(netns);
    // The mode of a pod that another schema turns too is not ours to change: first it becomes ours alone.
    if (others.holds(cookie)) {
      await this.apply(netns, spec, { sysctls: ALL_LETTERS });
      others.forget(cookie);
    }
    const found = bpf.podRead(cookie);
    if (found !== undefined) bpf.podWrite(cookie, this.#entries.planned(netns, spec, mode, found));
  }

  #cookie(netns: NetnsHandle): bigint {
    const known = this.#cookies.get(netns);
    if (known !== undefined) return known;
    const cookie = this.options.binding.netnsCookie(netns.fd);
    this.#cookies.set(netns, cookie);
    return cookie;
  }

  /** @throws AgentError NO_ENGINE with the reason; NativeError */
  #open(): EbpfNode {
    const { binding, logger, bpffs, cgroups, clock, version } = this.options;
    if ("reason" in bpffs) throw new AgentError("NO_ENGINE", bpffs.reason);
    if ("reason" in cgroups) throw new AgentError("NO_ENGINE", cgroups.reason);
    this.#node ??= EbpfNode.open({ binding, logger, bpffs: bpffs.path, cgroups, clock, version });
    return this.#node;
  }

  get #opened(): EbpfNode {
    if (this.#node === undefined) throw new AgentError("NO_ENGINE", "the eBPF engine has not been tested yet");
    return this.#node;
  }

  #differs(differences: readonly string[]): Observation {
    return { mode: "differs", engine: this.name, differences };
  }
}

/** The inode part of `dev:ino`. */
function inodeOf(id: NetnsId): bigint {
  return BigInt(id.split(":")[1] ?? 0);
}
