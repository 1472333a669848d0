// SPDX-License-Identifier: Apache-2.0
// The engine's share of the node: pinned programs and maps, hooks on cgroups, and the pods it knows.
import { join } from "node:path";
import type { Clock } from "../../core/clock.ts";
import {
  LOCAL_MARK,
  MARK_MASK,
  SHADOW_RANGE,
  SPREAD_RANGE,
  VERIFY_MARK,
  ZTUNNEL_MARK,
  ZTUNNEL_PORT,
} from "../../core/constants.ts";
import type { Logger } from "../../core/ports/telemetry.ts";
import type { NativeBinding } from "../../native/binding.ts";
import type { BpfKnobs, BpfNode } from "../../native/bpf.ts";
import type { Cgroup } from "../../sys/cgroup.ts";
import { Attachments } from "./attachments.ts";
import type { Cgroups } from "./cgroups.ts";
import { OutboundHooks } from "./hooks.ts";
import { OtherVersions } from "./versions.ts";
import { ZtunnelHooks } from "./ztunnels.ts";

/** Equal to AMBIENT_SCHEMA of bpf/abi.h: layouts of maps. Agents of another schema keep to their own pins. */
export const SCHEMA = 1;
/** Below the node's bpffs; without dots, which are reserved there. */
export const HOME = "ambient-cni";

export const KNOBS: BpfKnobs = {
  ztunnelMark: ZTUNNEL_MARK,
  localMark: LOCAL_MARK,
  markMask: MARK_MASK,
  verifyMark: VERIFY_MARK.ebpf,
  outboundPort: ZTUNNEL_PORT.outbound,
  inboundPort: ZTUNNEL_PORT.inboundPlaintext,
  hbonePort: ZTUNNEL_PORT.inboundHbone,
  dnsPort: ZTUNNEL_PORT.dns,
  shadow4: SHADOW_RANGE[4],
  shadow6: SHADOW_RANGE[6],
  spread4: SPREAD_RANGE[4],
  spread6: SPREAD_RANGE[6],
};

export interface EbpfNodeOptions {
  readonly binding: NativeBinding;
  readonly logger: Logger;
  /** The node's bpffs, as this process reaches it. */
  readonly bpffs: string;
  readonly cgroups: Cgroups;
  readonly clock?: Clock | undefined;
  /** Of an agent of another version, for tests: SCHEMA and KNOBS are ours. */
  readonly version?: EbpfVersion | undefined;
}

export interface EbpfVersion {
  readonly schema: number;
  readonly knobs: BpfKnobs;
}

/** A pin of a pod is named by its netns cookie; whatever else lies there is not ours. */
const COOKIE = /^\d{1,20}$/;

export class EbpfNode {
  readonly bpf: BpfNode;
  readonly hooks: OutboundHooks;
  readonly ztunnels: ZtunnelHooks;
  readonly attachments: Attachments;
  readonly cgroups: Cgroups;
  /** The agent's own cgroup, once the self-test has found it. */
  own: Cgroup | undefined;
  readonly others: OtherVersions;
  /** Shadows in use, as the kernel has them. */
  readonly #shadows = new Map<string, bigint>();

  private constructor(
    private readonly options: EbpfNodeOptions,
    bpf: BpfNode,
    name: string,
  ) {
    const { binding, cgroups, logger, clock } = options;
    this.bpf = bpf;
    this.cgroups = cgroups;
    this.hooks = new OutboundHooks(binding, bpf, cgroups, logger);
    this.ztunnels = new ZtunnelHooks(binding, bpf, cgroups, logger);
    this.attachments = new Attachments(binding, bpf);
    this.others = new OtherVersions(bpf, name, logger, clock);
    for (const cookie of bpf.podCookies()) this.#remember(cookie);
  }

  /** Opens what an earlier agent pinned, or loads it. @throws NativeError. */
  static open(options: EbpfNodeOptions): EbpfNode {
    const { binding, bpffs, version = { schema: SCHEMA, knobs: KNOBS } } = options;
    const name = `v${version.schema}`;
    return new EbpfNode(options, binding.bpfOpen(join(bpffs, HOME, name), version.knobs), name);
  }

  /** What the next agent would not find, a sentence. Whatever is attached next pins it again. */
  unpinned(): readonly string[] {
    const { bpf } = this;
    if (bpf.pins("maps").length > 0 && bpf.pins("programs").includes(bpf.generation)) return [];
    return ["the programs and maps are not pinned any more"];
  }

  /** True when the shadow is another pod's. */
  isTaken(shadow: string, cookie: bigint): boolean {
    const owner = this.#shadows.get(shadow);
    if (owner === undefined || owner === cookie) return false;
    // Somebody else than this process may have released the owner.
    this.remember(owner);
    return this.#shadows.get(shadow) === owner;
  }

  /** Notes what `cookie` has in the kernel now. */
  remember(cookie: bigint): void {
    for (const [shadow, owner] of this.#shadows) if (owner === cookie) this.#shadows.delete(shadow);
    this.#remember(cookie);
  }

  /** Removes what belongs to netns that are gone, and to versions that no pod uses. Returns how many netns. */
  collect(): number {
    const gone = this.#forget((inode) => inode !== 0n);
    this.ztunnels.collect();
    this.others.collect(this.hooks.missing().length === 0);
    return gone;
  }

  /**
   * Removes everything that is pinned, and closes, unless a pod is captured still. Returns how many are. A netns
   * outlives its pod while a connection of it waits for its end, so what counts is whether one is in use.
   */
  vacate(isInUse: (inode: bigint) => boolean): number {
    this.#forget(isInUse);
    const captured = this.bpf.podCookies().length + this.others.captured(isInUse);
    if (captured > 0) return captured;
    // Before the end: who is refused this may try again.
    this.options.binding.bpfRemove(join(this.options.bpffs, HOME));
    this.close();
    return 0;
  }

  /** Removes pods whose netns is not to be kept. The kernel empties a link's target when its netns ends. */
  #forget(isKept: (inode: bigint) => boolean): number {
    let gone = 0;
    for (const pin of this.bpf.pins("pods").filter((name) => COOKIE.test(name))) {
      const link = this.bpf.link(`pods/${pin}/lookup`);
      if (link !== undefined && isKept(link.target)) continue;
      gone++;
      const cookie = BigInt(pin);
      this.bpf.podDelete(cookie);
      this.bpf.unpin(`pods/${pin}`);
      this.remember(cookie);
    }
    return gone;
  }

  close(): void {
    this.hooks.close();
    this.bpf.close();
  }

  #remember(cookie: bigint): void {
    const pod = this.bpf.podRead(cookie);
    for (const shadow of [pod?.shadow4 ?? "", pod?.shadow6 ?? ""]) if (shadow !== "") this.#shadows.set(shadow, cookie);
  }
}
