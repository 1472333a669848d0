// SPDX-License-Identifier: Apache-2.0
import { findPod } from "../../core/report/find-pod.ts";
import { type PodReport, podTitle } from "../../core/report/pods.ts";
import type { ResetsReport } from "../../core/report/proofs.ts";
import { addCommand, type Program, usageError } from "../command.ts";
import { EXIT } from "../exit.ts";
import { visible } from "../render/text.ts";

interface ResetOptions {
  readonly all?: boolean;
  readonly dryRun?: boolean;
}

export function addResetExisting(program: Program): void {
  addCommand<ResetOptions>(
    program,
    {
      usage: "reset-existing [pods...]",
      summary: "ends connections that are older than their pod's capture",
      examples: [
        "ambient-cni reset-existing shop/web",
        "ambient-cni reset-existing --all --dry-run   # how many there are, and where",
        "ambient-cni pods -o wide                     # the same, for all pods",
      ],
    },
    (command) => command.option("--all", "of every captured pod").option("--dry-run", "only say what would be reset"),
    async (session, { all = false, dryRun = false }, references) => {
      if (all === references.length > 0) usageError("name the pods, or --all");
      const source = await session.agent();
      const listed = await source.read("pods");
      const chosen = all
        ? listed.pods.filter(({ mesh }) => mesh === "enrolled")
        : references.map((reference) => findPod(listed.pods, reference));
      if (dryRun) {
        // A pod that was named is answered for; of all only those where something would be done.
        const pods = all ? chosen.filter(({ existing }) => existing !== null && existing > 0) : chosen;
        await session.print({ ...listed, pods }, () => plannedText(pods));
        return pods.every(({ existing }) => existing !== null) ? EXIT.ok : EXIT.problem;
      }
      const report = await source.change("reset-existing", { uids: chosen.map(({ uid }) => uid) });
      await session.print(report, () => resetsText(report));
      return report.pods.every(({ problem }) => problem === null) ? EXIT.ok : EXIT.problem;
    },
  );
}

export function plannedText(pods: readonly PodReport[]): string {
  if (pods.length === 0) return "no connection is older than its pod's capture\n";
  return pods.map((pod) => `${visible(podTitle(pod))}: ${plannedFor(pod)}\n`).join("");
}

/** As the agent answers for the same pod when it is asked in earnest. */
function plannedFor({ existing, mesh, detail, reason }: PodReport): string {
  if (existing !== null) return `would reset ${existing}`;
  return `${mesh === "none" ? "not in the mesh" : mesh}: ${visible(detail === "" ? reason : detail)}`;
}

export function resetsText({ pods }: ResetsReport): string {
  if (pods.length === 0) return "no pod is captured\n";
  return pods
    .map(({ pod, reset, problem }) => `${visible(pod)}: ${problem === null ? `${reset} reset` : visible(problem)}\n`)
    .join("");
}
