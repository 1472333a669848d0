// SPDX-License-Identifier: Apache-2.0
import type { CaptureSpec } from "../../core/ports/dataplane.ts";
import type { AddressFamily, NativeBinding } from "../../native/binding.ts";
import { deleteChains } from "../iptables/deletion.ts";
import { readTables } from "../iptables/kernel.ts";
import { endChains, isShield, removeChains } from "./chains.ts";
import type { UpstreamForm } from "./form.ts";
import { RAW_TABLE, SHIELD_TABLE } from "./names.ts";
import { shieldChains, shieldTables } from "./shield.ts";
import { endTables, removeInetTables } from "./tables.ts";
import {
  type ChainTraces,
  redirects,
  redirectsNatively,
  type UpstreamTraces,
  upstreamPresent,
  upstreamTraces,
} from "./traces.ts";
import { writeChains, writeInetTables } from "./write.ts";

/** What upstream's istio-cni has written into pods: the only foreign objects that we ever touch. */
export class UpstreamRules {
  constructor(private readonly binding: NativeBinding) {}

  /** True when anything of it, or a shield of ours, is there. No fork. */
  present(netns: number): boolean {
    return upstreamPresent(this.binding, netns);
  }

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
    await removeInetTables(this.binding, netns, tables);
  }

  /** Nothing is there any more that it kept its rules off. Idempotent. @throws AgentError. */
  async unshield(netns: number): Promise<void> {
    const { chains = [], tables = [] } = this.traces(netns) ?? {};
    const shielded = chains
      .map((one) => ({ ...one, tables: one.tables.filter((table) => table.chains.some(isShield)) }))
      .filter((one) => one.tables.length > 0);
    // All in one transaction: what follows finds hardly any.
    const native = shielded.filter(({ variant }) => variant === "nft").map(({ family }) => family);
    if (native.length > 0) await deleteChains(this.binding, netns, native, isShield);
    for (const one of shielded) await removeChains(this.binding, netns, one, isShield);
    await removeInetTables(
      this.binding,
      netns,
      tables.filter((name) => name === SHIELD_TABLE),
    );
  }

  /**
   * Its own rules in this form, and in no other, in place of whatever is there of them. With `shield`, for connections
   * that are none of theirs, that is there no later than they are.
   * @throws AgentError. What was done by then stays done.
   */
  async write(netns: number, spec: CaptureSpec, form: UpstreamForm, shield = false): Promise<void> {
    const { chains = [], tables = [] } = this.traces(netns) ?? {};
    if (form === "nftables") {
      await writeInetTables(netns, spec, shield && !tables.includes(SHIELD_TABLE));
      for (const one of chains) await removeChains(this.binding, netns, one);
      if (!spec.dnsCapture && tables.includes(RAW_TABLE)) await removeInetTables(this.binding, netns, [RAW_TABLE]);
      return;
    }
    const families = familiesOf(spec.ipv6);
    for (const family of families) {
      const variant = form[family];
      const found = chains.find((one) => one.family === family && one.variant === variant);
      await writeChains(netns, spec, found ?? { variant, family, tables: [] }, shield);
    }
    const isOther = ({ family, variant }: ChainTraces) => !families.includes(family) || form[family] !== variant;
    for (const one of chains.filter(isOther)) await removeChains(this.binding, netns, one);
    await removeInetTables(
      this.binding,
      netns,
      tables.filter((name) => name !== SHIELD_TABLE),
    );
  }

  /** True when its rules of this form redirect, in each family that it writes for. No fork. */
  redirects(netns: number, { ipv6 }: CaptureSpec, form: UpstreamForm): boolean {
    return form === "nftables"
      ? redirectsNatively(this.binding, netns)
      : familiesOf(ipv6).every((family) =>
          readTables(this.binding, netns, form[family], [family], ["nat"]).some(redirects),
        );
  }
}

/** Its agent writes for both families where IPv6 is on, whether or not the pod has it. */
function familiesOf(ipv6: boolean): readonly AddressFamily[] {
  return ipv6 ? [4, 6] : [4];
}
