// SPDX-License-Identifier: Apache-2.0
import { POD_TABLE } from "../../core/constants.ts";
import { AgentError, messageOf } from "../../core/errors.ts";
import type { EngineTest } from "../../core/ports/dataplane.ts";
import type { NativeBinding } from "../../native/binding.ts";
import { prepareScratchPod, SCRATCH_SPEC } from "../netfilter/scratch-pod.ts";
import { verifyCapture } from "../netfilter/verify.ts";
import { addRouting } from "../routes.ts";
import { ScratchPair } from "../scratch.ts";
import { testSteering } from "../steering-test.ts";
import { nft } from "./nft.ts";
import { type Features, planCapture } from "./plan.ts";
import { bodyText, replaceText } from "./text.ts";

const NO_SOCKET_MARK =
  "this kernel's nf_tables has no `socket mark`: an application whose listener has an SO_MARK of its own is not reachable from outside";

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
    const prepared = prepareScratchPod(binding, pair);
    losses.push(...prepared.losses);
    features = { ...features, sysctls: prepared.sysctls };
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
    losses.push(NO_SOCKET_MARK);
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
  return replaceText(POD_TABLE, COMMENT, bodyText(planCapture(SCRATCH_SPEC, features)));
}
