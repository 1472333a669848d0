// SPDX-License-Identifier: Apache-2.0
import { Option } from "commander";
import { head } from "../../core/report/document.ts";
import { CATEGORIES, type Category, type CheckReport, type CheckVerdict } from "../check/check.ts";
import { addCommand, type Program, usageError } from "../command.ts";
import { EXIT } from "../exit.ts";
import type { Paint, Style } from "../render/paint.ts";
import { visible } from "../render/text.ts";

interface CheckOptions {
  readonly pre?: boolean;
  readonly category?: readonly Category[];
}

export function addCheck(program: Program): void {
  addCommand<CheckOptions>(
    program,
    {
      usage: "check",
      summary: "tries what capture stands on; each failure with code, evidence and remedy",
      examples: [
        "ambient-cni check                      # exit 1 when one fails; warnings don't",
        "ambient-cni check --pre                # before the agent is installed",
        "ambient-cni check --category cni,pods",
      ],
    },
    (command) =>
      command
        .option("--pre", "only what makes sense before the agent is installed")
        .addOption(new Option("--category <names>", `some of ${CATEGORIES.join(",")}`).argParser(parseCategories)),
    async (session, { pre = false, category = CATEGORIES }) => {
      if (session.globals.from !== undefined) usageError("check tries a node: a report can't be tried");
      const [{ CHECKS }, { runCheck }, { openContext }] = await Promise.all([
        import("../check/checks.ts"),
        import("../check/check.ts"),
        import("../check/context.ts"),
      ]);
      const context = await openContext(session);
      const chosen = CHECKS.filter((check) => category.includes(check.category) && (check.pre || !pre));
      const lines = session.globals.format === "table" || session.globals.format === "wide";
      const checks: CheckReport[] = [];
      for (const check of chosen) {
        const previous = checks.at(-1)?.category;
        const report = await runCheck(check, context);
        checks.push(report);
        // As they end: one that hangs shows where.
        if (lines) {
          if (report.category !== previous) session.env.stdout.write(`${session.paint("bold", report.category)}\n`);
          session.env.stdout.write(checkText(report, session.paint));
        }
      }
      const node = context.view.config.nodeName || null;
      const document = { ...head({ from: "kernel", note: "" }, node, session.env.now()), checks };
      if (lines) session.env.stdout.write(closing(checks));
      else await session.print(document, () => "");
      return checks.some(({ verdict }) => verdict === "fail") ? EXIT.problem : EXIT.ok;
    },
  );
}

function parseCategories(text: string): readonly Category[] {
  const names = text.split(",");
  const known = CATEGORIES.filter((category) => names.includes(category));
  if (known.length !== names.length) throw new Error(`categories are ${CATEGORIES.join(", ")}`);
  return known;
}

const SHOWN: Readonly<Record<CheckVerdict, readonly [string, Style]>> = {
  ok: ["√", "green"],
  warn: ["‼", "yellow"],
  fail: ["×", "red"],
  skip: ["·", "dim"],
};

export function checkText({ code, title, verdict, evidence, fix }: CheckReport, paint: Paint): string {
  const [mark, style] = SHOWN[verdict];
  if (fix === null) return `  ${paint(style, mark)} ${title}${paint("dim", `: ${visible(evidence)}`)}\n`;
  const where = `docs/checks.md#${code.toLowerCase()}`;
  return `  ${paint(style, mark)} ${title}   ${code}\n      ${visible(evidence)}\n      fix: ${fix}   see ${where}\n`;
}

function closing(checks: readonly CheckReport[]): string {
  const count = (verdict: CheckVerdict) => checks.filter((check) => check.verdict === verdict).length;
  const warnings = count("warn");
  return `${count("ok")} passed, ${warnings} ${warnings === 1 ? "warning" : "warnings"}, ${count("fail")} failed, ${count("skip")} not looked at\n`;
}
