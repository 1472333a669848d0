// SPDX-License-Identifier: Apache-2.0
import { findPod } from "../../core/report/find-pod.ts";
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
        "ambient-cni reset-existing shop/web-7f4c",
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
        const pods = chosen.filter(({ existing }) => existing !== null && existing > 0);
        await session.print({ ...listed, pods }, () =>
          pods.length === 0
            ? "no connection is older than its pod's capture\n"
            : pods.map(({ namespace, name, existing }) => `${namespace}/${name}: would reset ${existing}\n`).join(""),
        );
        return EXIT.ok;
      }
      const report = await source.change("reset-existing", { uids: chosen.map(({ uid }) => uid) });
      await session.print(report, () => resetsText(report));
      return report.pods.every(({ problem }) => problem === null) ? EXIT.ok : EXIT.problem;
    },
  );
}

export function resetsText({ pods }: ResetsReport): string {
  if (pods.length === 0) return "no pod is captured\n";
  return pods
    .map(({ pod, reset, problem }) => `${visible(pod)}: ${problem === null ? `${reset} reset` : visible(problem)}\n`)
    .join("");
}
