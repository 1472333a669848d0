// SPDX-License-Identifier: Apache-2.0
import type { CaptureSpec } from "../../core/ports/dataplane.ts";
import type { AddressFamily, NativeBinding } from "../../native/binding.ts";
import { readTables } from "../iptables/kernel.ts";
import { endChains, isShield, removeChains } from "./chains.ts";
import type { UpstreamForm } from "./form.ts";
import { RAW_TABLE, SHIELD_TABLE } from "./names.ts";
import { shieldChains, shieldTables } from "./shield.ts";
import { endTables, removeInetTables } from "./tables.ts";
import { type ChainTraces, type UpstreamTraces, upstreamTraces } from "./traces.ts";
import { writeChains, writeInetTables } from "./write.ts";

/** What upstream's istio-cni has written into pods: the only foreign objects that we ever touch. */
export class UpstreamRules {
  constructor(private readonly binding: NativeBinding) {}

  /** undefined when nothing of it is there. No fork. */
  traces(netns: number): UpstreamTraces | undefined {
    return upstreamTraces(this.binding, netns);
  }

  /** Before the eBPF engine steers beside its rules. Idempotent. @throws AgentError. */
  async shield(netns: number): Promise<void> {
    const { chains = [], tables = [] } = this.traces(netns) ?? {};
    for (const one of chains) await shieldChains(netns, one);
    if (tables.length > 0 && !tables.includes(SHIELD_TABLE)) await shieldTables(netns);
  }

  /**
   * New connections are not redirected by it any more, open ones go on. Idempotent.
   * @throws AgentError. What was done by then stays done.
   */
  async end(netns: number): Promise<void> {
    const { chains = [], tables = [], steers = false } = this.traces(netns) ?? {};
    if (!steers) return;
    for (const one of chains) await endChains(netns, one);
    await endTables(netns, tables);
  }

  /** Nothing of it is left. Idempotent. @throws AgentError. What was done by then stays done. */
  async remove(netns: number): Promise<void> {
    const { chains = [], tables = [] } = this.traces(netns) ?? {};
    for (const one of chains) await removeChains(this.binding, netns, one);
    await removeInetTables(netns, tables);
  }

  /** Before its rules are written beside connections that are none of theirs. Idempotent. @throws AgentError. */
  async writeShield(netns: number, { ipv6 }: CaptureSpec, form: UpstreamForm): Promise<void> {
    if (form === "nftables") return await shieldTables(netns);
    for (const family of familiesOf(ipv6)) {
      const variant = form[family];
      await shieldChains(netns, { variant, family, tables: readTables(this.binding, netns, variant, [family]) });
    }
  }

  /** Nothing is there any more that it kept its rules off. Idempotent. @throws AgentError. */
  async unshield(netns: number): Promise<void> {
    const { chains = [], tables = [] } = this.traces(netns) ?? {};
    for (const one of chains) await removeChains(this.binding, netns, one, isShield);
    await removeInetTables(
      netns,
      tables.filter((name) => name === SHIELD_TABLE),
    );
  }

  /**
   * Its own rules in this form, and in no other, in place of whatever is there of them.
   * @throws AgentError. What was done by then stays done.
   */
  async write(netns: number, spec: CaptureSpec, form: UpstreamForm): Promise<void> {
    const { chains = [], tables = [] } = this.traces(netns) ?? {};
    if (form === "nftables") {
      await writeInetTables(netns, spec);
      for (const one of chains) await removeChains(this.binding, netns, one);
      if (!spec.dnsCapture && tables.includes(RAW_TABLE)) await removeInetTables(netns, [RAW_TABLE]);
      return;
    }
    const families = familiesOf(spec.ipv6);
    for (const family of families) await writeChains(this.binding, netns, spec, form[family], family);
    const isOther = ({ family, variant }: ChainTraces) => !families.includes(family) || form[family] !== variant;
    for (const one of chains.filter(isOther)) await removeChains(this.binding, netns, one);
    await removeInetTables(
      netns,
      tables.filter((name) => name !== SHIELD_TABLE),
    );
  }
}

/** Its agent writes for both families where IPv6 is on, whether or not the pod has it. */
function familiesOf(ipv6: boolean): readonly AddressFamily[] {
  return ipv6 ? [4, 6] : [4];
}
