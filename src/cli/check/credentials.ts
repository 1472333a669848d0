// SPDX-License-Identifier: Apache-2.0
// What the agent shows to the API server, and what it knows that one by.
import { type Check, fail, ok, skip, warn } from "./check.ts";

const DAY_MS = 86_400_000;
const AUTHORITY_WARN_DAYS = 14;

export const CREDENTIAL_CHECKS: readonly Check[] = [
  {
    code: "AMB-604",
    category: "agent",
    title: "the service account's token is fresh",
    pre: false,
    fix: "see kubelet's log on this node: it renews the token; a token that does not expire comes from a Secret, which the chart does not use",
    about:
      "Kubelet renews the token that it mounts in the agent's pod long before it ends. An expired one means that the agent is deaf: it hears of no pod any more. One that kubelet should have renewed and has not is warned of, and one that never expires: whoever copies it once has it for good. Read where it is mounted: not known on the node itself, and where AMBIENT_CNI_KUBECONFIG is used.",
    run: async ({ facts }) => {
      const { token } = await facts.credentials();
      if (token === undefined) return skip("it says nothing about itself: no JWT");
      const { expiresAt, renewBy } = token;
      if (expiresAt === undefined) return warn("it never expires");
      const left = expiresAt - facts.now();
      if (left <= 0) return fail(`it ended ${duration(-left)} ago`);
      const late = facts.now() - (renewBy ?? expiresAt);
      return late > 0
        ? warn(`kubelet should have renewed it ${duration(late)} ago`)
        : ok(`for another ${duration(left)}`);
    },
  },
  {
    code: "AMB-605",
    category: "agent",
    title: "the API server's certificate authority lasts",
    pre: false,
    fix: "renew the cluster's certificate authority (kubeadm certs, or the provider's procedure), and restart what mounts it",
    about:
      "The agent trusts the API server by the authorities in its pod's ca.crt. When the last of them has ended, it trusts nobody any more. Warned of in the last two weeks.",
    run: async ({ facts }) => {
      const { authorityEnd } = await facts.credentials();
      if (authorityEnd === undefined) return fail("ca.crt holds no certificate that can be read");
      const left = authorityEnd - facts.now();
      if (left <= 0) return fail(`the last one ended ${duration(-left)} ago`);
      return left < AUTHORITY_WARN_DAYS * DAY_MS
        ? warn(`it ends in ${duration(left)}`)
        : ok(`for another ${duration(left)}`);
    },
  },
];

function duration(ms: number): string {
  if (ms >= 2 * DAY_MS) return `${Math.floor(ms / DAY_MS)} days`;
  return ms >= 7_200_000 ? `${Math.floor(ms / 3_600_000)} h` : `${Math.floor(ms / 60_000)} min`;
}
