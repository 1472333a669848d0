// SPDX-License-Identifier: Apache-2.0
import { systemClock } from "../core/clock.ts";
import type { NetworkPolicy } from "../core/network-policy.ts";
import type { Logger } from "../core/ports/telemetry.ts";
import type { Labels } from "../core/selector.ts";
import { KubeClient } from "./client.ts";
import type { CredentialSource } from "./credentials.ts";
import { recordOf, textOf } from "./json.ts";
import { readList } from "./list-items.ts";
import { PODS_PATH, POLICIES_PATH } from "./paths.ts";
import { policyFromKube } from "./policies.ts";

const PAGE = "500";
/** A cluster with more policies is not looked at to its end. */
const MAX_PAGES = 20;

export interface LabelledPod {
  readonly uid: string;
  readonly namespace: string;
  readonly labels: Labels;
}

export interface PoliciesOfNode {
  readonly policies: readonly NetworkPolicy[];
  /** Of the node's pods. */
  readonly pods: readonly LabelledPod[];
  /** There were more policies than are read. */
  readonly more: boolean;
}

/**
 * Every NetworkPolicy of the cluster, and the labels of a node's pods: two questions, asked once, at the same time.
 * `timeoutMs` is for all pages of each.
 * @throws KubeError (403 where the account may not list policies), AgentError KUBE_*
 */
export async function readPolicies(
  credentials: CredentialSource,
  nodeName: string,
  timeoutMs: number,
  logger: Logger,
): Promise<PoliciesOfNode> {
  const client = new KubeClient({ credentials, clock: systemClock, logger, userAgent: "ambient-cni-check" });
  try {
    const policies: NetworkPolicy[] = [];
    const reading = list(client, POLICIES_PATH, {}, timeoutMs, (item) => {
      const policy = policyFromKube(item);
      if (policy !== undefined) policies.push(policy);
    });
    const pods: LabelledPod[] = [];
    const labels = list(client, PODS_PATH, { fieldSelector: `spec.nodeName=${nodeName}` }, timeoutMs, (item) => {
      const { uid, namespace, labels: given } = recordOf(recordOf(item).metadata);
      const texts = Object.entries(recordOf(given)).map(([key, value]) => [key, textOf(value)] as const);
      pods.push({ uid: textOf(uid), namespace: textOf(namespace), labels: Object.fromEntries(texts) });
    });
    const [{ more }] = await Promise.all([reading, labels]);
    return { policies, pods, more };
  } finally {
    await client.close();
  }
}

async function list(
  client: KubeClient,
  path: string,
  query: Readonly<Record<string, string>>,
  timeoutMs: number,
  onItem: (item: unknown) => void,
): Promise<{ readonly more: boolean }> {
  const until = performance.now() + timeoutMs;
  let token = "";
  for (let page = 0; page < MAX_PAGES; page++) {
    const stream = await client.stream(
      {
        method: "GET",
        path,
        query: { ...query, limit: PAGE, ...(token === "" ? {} : { continue: token }) },
        timeoutMs: Math.max(1, Math.ceil(until - performance.now())),
      },
      false,
    );
    try {
      const rest = recordOf(await readList(stream.chunks, onItem));
      token = textOf(recordOf(rest.metadata).continue);
    } finally {
      await stream.close();
    }
    if (token === "") return { more: false };
  }
  return { more: true };
}
