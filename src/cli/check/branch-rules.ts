// SPDX-License-Identifier: Apache-2.0
// Captured pods with security groups of AWS's, by the policy rules of the node: what is there, whoever was to add it.
import { familyOf } from "../../core/ip.ts";
import { type PodReport, podTitle } from "../../core/report/pods.ts";
import type { NativeBinding, Rule } from "../../native/binding.ts";
import type { BranchAddress } from "./facts.ts";

/** Of the rule that leads the node's own packets to the pod, as upstream's istio-cni numbers it. */
const TO_POD_PRIORITY = 512;
const TABLE_MAIN = 254;
const TABLE_LOCAL = 255;

/** `host`: the node's netns. @throws NativeError */
export function readBranchAddresses(
  binding: Pick<NativeBinding, "links" | "rules" | "routes">,
  host: number,
  pods: readonly PodReport[],
): readonly BranchAddress[] {
  const names = new Map(binding.links(host).map(({ index, name }) => [index, name]));
  return pods
    .filter(({ mesh }) => mesh === "captured")
    .flatMap((pod) =>
      pod.ips.flatMap((ip): BranchAddress[] => {
        const family = familyOf(ip);
        const rules = binding.rules(host, family);
        const branch = rules.filter(isPolicy).find(({ iif, table }) =>
          binding.routes(host, family, table).some(({ dst, prefix, oif }) => {
            return dst === ip && prefix === (family === 4 ? 32 : 128) && names.get(oif) === iif;
          }),
        );
        if (branch === undefined) return [];
        const { iif, table } = branch;
        const toPod = rules.some((rule) => rule.priority === TO_POD_PRIORITY && rule.to === ip && rule.table === table);
        const fromPod = rules.some((rule) => rule.table === TABLE_LOCAL && rule.iif === iif && rule.to === "");
        return [{ pod: podTitle(pod), ip, ruled: toPod && fromPod }];
      }),
    );
}

/** The CNI's: what comes from the pod goes by the pod's own table. */
function isPolicy({ iif, table }: Rule): boolean {
  return iif !== "" && table > 0 && table !== TABLE_MAIN && table !== TABLE_LOCAL;
}
