// SPDX-License-Identifier: Apache-2.0
import { POD_TABLE, PROBE_SNAT_IPV4, PROBE_SNAT_IPV6 } from "../../core/constants.ts";
import { AgentError, messageOf } from "../../core/errors.ts";
import type { CaptureSpec, EngineTest } from "../../core/ports.ts";
import type { NativeBinding } from "../../native/binding.ts";
import { addRouting } from "../routes.ts";
import { ScratchPair } from "../scratch.ts";
import { testSteering } from "../steering-test.ts";
import { setSysctls } from "../sysctls.ts";
import { nft } from "./nft.ts";
import { type Features, planCapture } from "./plan.ts";
import { bodyText, replaceText } from "./text.ts";
import { verifyCapture } from "./verify.ts";

const LOSS = {
  noSysctls: (keys: string) =>
    `sysctls of a pod can't be set (${keys}): ztunnel's connections to applications are tracked by conntrack, ` +
    "which costs one entry more per inbound connection and some throughput",
  noMigration: (reason: string) =>
    `net/ipv4/tcp_migrate_req can't be set (${reason}): connections that wait in the queue of a ztunnel that ends are reset`,
  noSocketMark:
    "this kernel's nf_tables has no `socket mark`: an application whose listener has an SO_MARK of its own is not reachable from outside",
  noIpv6: "new network namespaces have no IPv6: IPv6 capture was not tested",
} as const;

/**
 * Captures a scratch pod and makes real connections both ways, in both families, with the colliding
 * 4-tuple and with DNS. Never rejects.
 */
export async function selfTest(binding: NativeBinding): Promise<EngineTest & { readonly features: Features }> {
  const began = performance.now();
  const losses: string[] = [];
  let features: Features = { sysctls: true, socketMark: true };
  const result = (works: boolean, reason: string | undefined) => ({
    engine: "nftables" as const,
    works,
    reason,
    losses,
    milliseconds: performance.now() - began,
    features,
  });
  try {
    using pair = ScratchPair.create(binding);
    if (!pair.families.includes(6)) losses.push(LOSS.noIpv6);
    const { failures } = setSysctls(binding, pair.pod.fd);
    const denied = failures.filter(({ required }) => required);
    if (denied.length > 0) {
      features = { ...features, sysctls: false };
      losses.push(LOSS.noSysctls(denied.map(({ key, reason }) => `${key}: ${reason}`).join(", ")));
    }
    for (const { required, reason } of failures) if (!required) losses.push(LOSS.noMigration(reason));
    addRouting(binding, pair.pod.fd, pair.families);
    features = await load(binding, pair, features, losses);
    await verifyCapture(binding, pair.pod.fd, pair.families);
    await testSteering(binding, pair);
    return result(true, undefined);
  } catch (error) {
    return result(false, messageOf(error));
  }
}

/** Loads the table; a kernel that lacks only `socket mark` gets the table without it. */
async function load(
  binding: NativeBinding,
  pair: ScratchPair,
  features: Features,
  losses: string[],
): Promise<Features> {
  try {
    await nft(pair.pod.fd, tableText(features));
    return withComment(binding, pair, features);
  } catch (error) {
    if (!features.sysctls || !(error instanceof AgentError) || error.code !== "NFT_FAILED") throw error;
    const without = { ...features, socketMark: false };
    await nft(pair.pod.fd, tableText(without));
    losses.push(LOSS.noSocketMark);
    return withComment(binding, pair, without);
  }
}

/** Our memory is in the table's comment, which kernels before 5.10 drop. */
function withComment(binding: NativeBinding, pair: ScratchPair, features: Features): Features {
  if (binding.nftTable(pair.pod.fd, "inet", POD_TABLE)?.comment !== COMMENT) {
    throw new AgentError("NFT_NO_COMMENT", "this kernel keeps no comments of nf_tables tables (it is older than 5.10)");
  }
  return features;
}

const COMMENT = "self-test";

function tableText(features: Features): string {
  const spec: CaptureSpec = {
    uid: "self-test",
    pod: "self/test",
    ips: [],
    ipv6: true,
    dnsCapture: true,
    dnsServers: undefined,
    bypassInbound: false,
    rerouteInterfaces: [],
    excludeOutboundCidrs: [],
    probeIpv4: PROBE_SNAT_IPV4,
    probeIpv6: PROBE_SNAT_IPV6,
  };
  return replaceText(POD_TABLE, COMMENT, bodyText(planCapture(spec, features)));
}
