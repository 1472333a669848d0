// SPDX-License-Identifier: Apache-2.0
// The engine's share of the node: pinned programs and maps, hooks on cgroups, and the pods it knows.
import { join } from "node:path";
import {
  LOCAL_MARK,
  MARK_MASK,
  SHADOW_RANGE,
  SPREAD_RANGE,
  VERIFY_MARK,
  ZTUNNEL_MARK,
  ZTUNNEL_PORT,
} from "../../core/constants.ts";
import type { Logger } from "../../core/ports.ts";
import type { NativeBinding } from "../../native/binding.ts";
import type { BpfKnobs, BpfNode } from "../../native/bpf.ts";
import type { Cgroup } from "../../sys/cgroup.ts";
import { Attachments } from "./attachments.ts";
import type { Cgroups } from "./cgroups.ts";
import { OutboundHooks } from "./hooks.ts";
import { ZtunnelHooks } from "./ztunnels.ts";

/** Equal to AMBIENT_SCHEMA of bpf/abi.h: layouts of maps. Agents of another schema keep to their own pins. */
export const SCHEMA = 1;
/** Below the node's bpffs; without dots, which are reserved there. */
const HOME = "ambient-cni";

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
}

export class EbpfNode {
  readonly bpf: BpfNode;
  readonly hooks: OutboundHooks;
  readonly ztunnels: ZtunnelHooks;
  readonly attachments: Attachments;
  /** The agent's own cgroup, once the self-test has found it. */
  own: Cgroup | undefined;
  /** Shadows in use, as the kernel has them. */
  readonly #shadows = new Map<string, bigint>();

  private constructor(options: EbpfNodeOptions, bpf: BpfNode) {
    const { binding, cgroups, logger } = options;
    this.bpf = bpf;
    this.hooks = new OutboundHooks(binding, bpf, cgroups, logger);
    this.ztunnels = new ZtunnelHooks(binding, bpf, cgroups, logger);
    this.attachments = new Attachments(binding, bpf);
    for (const cookie of bpf.podCookies()) this.#remember(cookie);
  }

  /** Opens what an earlier agent pinned, or loads it. @throws NativeError. */
  static open(options: EbpfNodeOptions): EbpfNode {
    return new EbpfNode(options, options.binding.bpfOpen(join(options.bpffs, HOME, `v${SCHEMA}`), KNOBS));
  }

  /** True when the shadow is another pod's. */
  isTaken(shadow: string, cookie: bigint): boolean {
    const owner = this.#shadows.get(shadow);
    return owner !== undefined && owner !== cookie;
  }

  /** Notes what `cookie` has in the kernel now. */
  remember(cookie: bigint): void {
    for (const [shadow, owner] of this.#shadows) if (owner === cookie) this.#shadows.delete(shadow);
    this.#remember(cookie);
  }

  /** Removes what belongs to netns that are gone. Returns how many. */
  collect(): number {
    let gone = 0;
    for (const pin of this.bpf.pins("pods")) {
      const link = this.bpf.link(`pods/${pin}/lookup`);
      // The kernel empties a link's target when its netns ends.
      if (link !== undefined && link.target !== 0n) continue;
      gone++;
      const cookie = BigInt(pin);
      this.bpf.podDelete(cookie);
      this.bpf.unpin(`pods/${pin}`);
      this.remember(cookie);
    }
    this.ztunnels.collect();
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
