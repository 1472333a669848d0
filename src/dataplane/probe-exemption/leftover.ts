// SPDX-License-Identifier: Apache-2.0
// The host's objects of an agent that is gone, for who takes them away without knowing its settings.
import { HOST_TABLE } from "../../core/constants.ts";
import { canonicalIp } from "../../core/ip.ts";
import type { NetnsHandle } from "../../core/ports/netns.ts";
import type { ProbeHeir } from "../../core/ports/probes.ts";
import type { Logger } from "../../core/ports/telemetry.ts";
import type { NativeBinding } from "../../native/binding.ts";
import { BranchEni } from "../branch-eni.ts";
import { nft } from "../nftables/nft.ts";
import { removeText } from "../nftables/text.ts";
import { changeText, type Owners, planProbes, tableText } from "./plan.ts";
import { HostTable } from "./table.ts";

export interface LeftExemption {
  /** Addresses and owners in the table; undefined: there is no table. */
  readonly owners: Owners | undefined;
}

export function readLeftExemption(binding: NativeBinding, host: NetnsHandle): LeftExemption {
  const table = binding.nftTables(host.fd).includes(`inet ${HOST_TABLE}`);
  return { owners: table ? new HostTable(binding, host).owners() : undefined };
}

/**
 * From now on probes reach exactly these pods, and nothing is left without any. Rules that are there stay as they
 * are; where there are none, `probes` says which address is worn. @throws AgentError NFT_MISSING | NFT_FAILED
 */
export async function trimExemption(
  binding: NativeBinding,
  host: NetnsHandle,
  heirs: readonly ProbeHeir[],
  probes: { readonly ipv4: string; readonly ipv6: string },
  logger: Logger,
): Promise<void> {
  const wanted = new Map<string, string>();
  for (const { uid, ips } of heirs) for (const ip of ips) wanted.set(canonicalIp(ip), uid);
  new BranchEni(binding, host, logger).reconcile([...wanted.keys()]);
  const { owners } = readLeftExemption(binding, host);
  if (wanted.size === 0) {
    if (owners !== undefined) await nft(host.fd, removeText(HOST_TABLE));
    return;
  }
  if (owners === undefined) {
    await nft(host.fd, tableText(planProbes({ uid: undefined, ...probes }), wanted));
    return;
  }
  const changes = new Map<string, string | undefined>(wanted);
  for (const ip of owners.keys()) if (!wanted.has(ip)) changes.set(ip, undefined);
  const text = changeText(owners, changes);
  if (text !== "") await nft(host.fd, text);
}
