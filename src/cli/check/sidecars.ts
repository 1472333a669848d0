// SPDX-License-Identifier: Apache-2.0
import { podTitle } from "../../core/report/pods.ts";
import { type Check, ok, skip, warn } from "./check.ts";

const SHOWN = 5;

export const SIDECAR_CHECKS: readonly Check[] = [
  {
    code: "AMB-420",
    category: "pods",
    title: "no sidecar pod is labelled for ambient too",
    pre: false,
    fix: "take the injection label off the namespace (istio-injection, istio.io/rev) and restart the pods, or take istio.io/dataplane-mode off",
    about:
      "Which of the two a pod is, its annotation sidecar.istio.io/status decides, not its labels: an injected pod keeps its sidecar until it is restarted without injection, as with istio-cni. On the way from sidecars to ambient that is a step (docs/MIGRATION-SIDECAR.md); where it stays so, somebody believes that these pods are in the ambient mesh.",
    run: async ({ read }) => {
      const { source, pods } = await read("pods");
      if (source.from === "kernel") return skip("only the agent knows the pods' labels");
      const both = pods.filter(({ reason }) => reason === "sidecar-labelled");
      if (both.length === 0) return ok("none is");
      const more = both.length > SHOWN ? `, and ${both.length - SHOWN} more` : "";
      return warn(`these are sidecar pods: ${both.slice(0, SHOWN).map(podTitle).join(", ")}${more}`);
    },
  },
];
