// SPDX-License-Identifier: Apache-2.0
import { ZTUNNEL_PORT } from "../../core/constants.ts";
import { codeOf } from "../../core/errors.ts";
import { policyGaps } from "../../core/network-policy.ts";
import { podTitle } from "../../core/report/pods.ts";
import { counted } from "../../core/report/words.ts";
import { type Check, ok, skip, warn } from "./check.ts";

const SHOWN = 5;
const PORT = ZTUNNEL_PORT.inboundHbone;
const GRANT =
  "this account may not list NetworkPolicies (docs/checks.md#amb-413 says how to let it), and no packet of the node's own would show it: policies seldom apply to the node";

export const POLICY_CHECKS: readonly Check[] = [
  {
    code: "AMB-413",
    category: "pods",
    title: `no NetworkPolicy keeps pods of the mesh from port ${PORT}`,
    pre: false,
    fix: `add TCP ${PORT} beside the ports that the policy lets through`,
    about: `Between pods of the mesh all TCP travels to port ${PORT}, whatever port the application asked for. A policy that lets in (or out) only the application's port drops it: connections hang. Named is a pod whose policies let TCP through, but not to ${PORT}; one for which they let nothing through is meant to be alone. The account of the agent may not read policies, and the chart does not let it: the agent itself has no use for them. To let \`kubectl -n istio-system exec ds/istio-cni-node -- ambient-cni check\` do it: \`kubectl create clusterrole ambient-cni-check --verb=list --resource=networkpolicies.networking.k8s.io\` and \`kubectl create clusterrolebinding ambient-cni-check --clusterrole=ambient-cni-check --serviceaccount=istio-system:istio-cni\`. Only NetworkPolicy of networking.k8s.io is looked at: Cilium's, Calico's and AdminNetworkPolicy are not, nor whether the CNI heeds any.`,
    asks: "api",
    run: async ({ facts, read }) => {
      const meshed = (await read("pods")).pods.filter(({ mesh }) => mesh === "enrolled" || mesh === "captured");
      if (meshed.length === 0) return ok("no pod is captured");
      const found = await facts.policies().catch((error: unknown) => {
        if (codeOf(error) === "KUBE_FORBIDDEN") return undefined;
        throw error;
      });
      if (found === undefined) return skip(GRANT);
      const { policies, pods, more } = found;
      const labelled = new Map(pods.map((pod) => [pod.uid, pod]));
      const gaps = meshed.flatMap((pod) => {
        const known = labelled.get(pod.uid);
        const all = known === undefined ? [] : policyGaps(known, policies, PORT);
        return all.map(({ direction, policies: names }) => `${podTitle(pod)}: ${direction} of ${names.join(", ")}`);
      });
      if (gaps.length > 0) {
        return warn(
          `${gaps.slice(0, SHOWN).join("; ")}${gaps.length > SHOWN ? ` and ${gaps.length - SHOWN} more` : ""}`,
        );
      }
      if (more)
        return skip(`more than ${counted(policies.length, "policy").replace(/ys?$/, "ies")}: not all were read`);
      const unknown = meshed.filter(({ uid }) => !labelled.has(uid));
      if (unknown.length > 0)
        return skip(`labels of ${unknown.map(podTitle).slice(0, SHOWN).join(", ")} are not known`);
      return ok(`${policies.length} in the cluster, ${meshed.length} captured pods`);
    },
  },
];
