// SPDX-License-Identifier: Apache-2.0
import { Option } from "commander";
import { ENGINE_NAMES } from "../../core/ports/dataplane.ts";
import { findPod } from "../../core/report/find-pod.ts";
import type { PlanReport } from "../../core/report/plan.ts";
import { addCommand, type Program } from "../command.ts";
import { EXIT } from "../exit.ts";
import type { Paint } from "../render/paint.ts";
import { visible } from "../render/text.ts";

interface PlanOptions {
  readonly engine?: string;
  readonly anyway?: boolean;
}

export function addPlan(program: Program): void {
  addCommand<PlanOptions>(
    program,
    {
      usage: "plan <pod>",
      summary: "the steps that a pod's enrolment would take, as text to review and compare",
      examples: [
        "ambient-cni plan shop/web",
        "ambient-cni plan web --engine nftables  # what another engine would write",
        "ambient-cni plan batch --anyway         # of a pod that is not in the mesh: if it were",
      ],
    },
    (command) =>
      command
        .addOption(new Option("--engine <name>", "with this engine").choices(ENGINE_NAMES))
        .option("--anyway", "also for a pod that is not in the mesh"),
    async (session, { engine, anyway = false }, [reference = ""]) => {
      const source = await session.agent();
      const { uid } = findPod((await source.read("pods")).pods, reference);
      const plan = await source.read("plan", {
        pod: uid,
        ...(engine === undefined ? {} : { engine }),
        ...(anyway ? { anyway: "yes" } : {}),
      });
      await session.print(plan, () => planText(plan, session.paint));
      return plan.problem === null ? EXIT.ok : EXIT.problem;
    },
  );
}

/** Without times and counts: two plans differ where what would be done differs. */
export function planText(plan: PlanReport, paint: Paint): string {
  const { eligibility, now, engine, others, steps, notes, problem } = plan;
  const why = eligibility.detail === "" ? eligibility.reason : eligibility.detail;
  const mesh = eligibility.verdict === "ambient" ? "in the mesh" : "not in the mesh";
  const lines = [
    paint("bold", visible(plan.pod)),
    `  because  ${eligibility.verdict === "sidecar" ? "sidecar" : mesh}: ${visible(why)}`,
    `  now      ${visible(now)}`,
  ];
  if (problem !== null) lines.push(`  ${paint("red", "problem")}  ${visible(`${problem.code}: ${problem.message}`)}`);
  if (engine !== null) lines.push(`  engine   ${engine}`);
  for (const other of others) lines.push(`    not ${other.engine}: ${visible(other.reason)}`);
  for (const note of notes) lines.push(`  note     ${visible(note)}`);
  for (const [index, { name, changes }] of steps.entries()) {
    lines.push("", paint("bold", `${index + 1}. ${visible(name)}`));
    for (const { what, text } of changes) {
      lines.push(`  ${visible(what)}`);
      // Lines are lines here; whatever else would move the cursor is shown.
      for (const line of text.split("\n")) lines.push(`    ${visible(line.replaceAll("\t", "  "))}`.trimEnd());
    }
  }
  return `${lines.join("\n")}\n`;
}
