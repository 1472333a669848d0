// SPDX-License-Identifier: Apache-2.0
// Whether the node knows what time it is: certificates are valid from one moment to another.
import { type Check, fail, ok, warn } from "./check.ts";

/** istiod's certificates begin so long before they are made (security/pkg/pki: ClockSkewGracePeriod). */
const BACKDATED_MS = 120_000;
/** ztunnel renews its certificates, which last 24 h, at half of their life. */
const HALF_LIFE_MS = 12 * 3_600_000;
const NOTABLE_MS = 10_000;

export const CLOCK_CHECKS: readonly Check[] = [
  {
    code: "AMB-104",
    category: "kernel",
    title: "the node's clock agrees with the API server's",
    pre: true,
    fix: "keep the node's clock in time (chrony, systemd-timesyncd), and the API server's",
    about:
      "ztunnels prove who they are by certificates that last a day, and begin two minutes before they are made. A node that is more than two minutes behind refuses its peers' new certificates as not yet valid, one that is half a day ahead refuses those that are about to be renewed: connections of the mesh fail by turns. The API server is asked for its time by the Date of an answer, which has whole seconds, without showing it any credentials. Warned of from 10 s on. Not known where no API server is: on the node itself, unless AMBIENT_CNI_KUBECONFIG names a kubeconfig.",
    asks: "api",
    run: async ({ facts }) => {
      const { aheadMs, uncertaintyMs, untrusted } = await facts.serverTime();
      const off = Math.max(0, Math.abs(aheadMs) - uncertaintyMs);
      const trust = untrusted === undefined ? "" : `; its certificate is not trusted: ${untrusted}`;
      if (off < NOTABLE_MS) return ok(`they differ by less than ${seconds(Math.abs(aheadMs) + uncertaintyMs)}${trust}`);
      const evidence = `the node is ${seconds(Math.abs(aheadMs))} ${aheadMs > 0 ? "behind" : "ahead"}${trust}`;
      return off > (aheadMs > 0 ? BACKDATED_MS : HALF_LIFE_MS) ? fail(evidence) : warn(evidence);
    },
  },
  {
    code: "AMB-105",
    category: "kernel",
    title: "somebody keeps the node's clock in time",
    pre: true,
    fix: "run chrony, systemd-timesyncd or another client of NTP on the node",
    about:
      "The kernel is asked (adjtimex) whether its clock is synchronised. Where nobody keeps it, it drifts, until certificates of the mesh are refused (AMB-104). A virtual machine whose clock follows its host's without NTP is warned of too: the kernel does not know about that.",
    run: ({ facts }) => {
      const { synchronised, maxErrorMs } = facts.clock();
      if (synchronised) return ok(`synchronised, off by at most ${Math.ceil(maxErrorMs)} ms`);
      return warn("the kernel's clock is not synchronised by anybody");
    },
  },
];

const seconds = (ms: number) => `${Math.ceil(ms / 1000)} s`;
