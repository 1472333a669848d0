// SPDX-License-Identifier: Apache-2.0
import { InvalidArgumentError, Option } from "commander";
import { head } from "../../core/report/document.ts";
import type { Documents } from "../../core/report/documents.ts";
import { CATEGORIES, type Category, type CheckReport, type CheckVerdict } from "../check/check.ts";
import { addCommand, type Program, usageError } from "../command.ts";
import { EXIT, exitOf } from "../exit.ts";
import { isTable } from "../globals.ts";
import { sourceLine } from "../render/headline.ts";
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
      const lines = isTable(session.globals.format);
      if (session.globals.from !== undefined) {
        if (pre) usageError("--pre tries a node, and --from reads what was found when its report was made");
        const told = await (await session.source()).read("check");
        const checks = told.checks.filter((check) => category.some((name) => name === check.category));
        await session.print({ ...told, checks }, () => sourceLine(told) + checksText(checks, session.paint));
        return statusOf(checks);
      }
      const [{ CHECKS }, { runChecks, answererOf }, { openContext }] = await Promise.all([
        import("../check/checks.ts"),
        import("../check/check.ts"),
        import("../check/context.ts"),
      ]);
      const context = await openContext(session);
      const chosen = CHECKS.filter((check) => category.includes(check.category) && (check.pre || !pre));
      const checks: CheckReport[] = [];
      const { source, error } = await answererOf(context);
      if (lines) session.env.stdout.write(sourceLine({ source }));
      for await (const report of runChecks(chosen, context)) {
        const previous = checks.at(-1)?.category;
        checks.push(report);
        // As they end: one that hangs shows where.
        if (lines) {
          if (report.category !== previous) session.env.stdout.write(`${session.paint("bold", report.category)}\n`);
          session.env.stdout.write(checkText(report, session.paint));
        }
      }
      const node = context.view.config.nodeName || null;
      const document: Documents["check"] = { ...head(source, node, session.env.now()), checks };
      if (lines) session.env.stdout.write(closing(checks));
      else await session.print(document, () => "");
      // Nothing failed, as next to nothing could be looked at.
      return exitOf(error) === EXIT.denied ? EXIT.denied : statusOf(checks);
    },
  );
}

function parseCategories(text: string): readonly Category[] {
  const names = text.split(",").map((name) => name.trim());
  const stranger = names.find((name) => !CATEGORIES.some((category) => category === name));
  if (stranger !== undefined) {
    throw new InvalidArgumentError(`${JSON.stringify(stranger)} is none of ${CATEGORIES.join(", ")}.`);
  }
  return CATEGORIES.filter((category) => names.includes(category));
}

type Shown = Omit<CheckReport, "category"> & { readonly category: string };

function statusOf(checks: readonly Shown[]): number {
  return checks.some(({ verdict }) => verdict === "fail") ? EXIT.problem : EXIT.ok;
}

/** All of them, by category. */
export function checksText(checks: readonly Shown[], paint: Paint): string {
  const shown = checks.map((check, index) => {
    const title = check.category === checks[index - 1]?.category ? "" : `${paint("bold", visible(check.category))}\n`;
    return title + checkText(check, paint);
  });
  return shown.join("") + closing(checks);
}

const SHOWN: Readonly<Record<CheckVerdict, readonly [string, Style]>> = {
  ok: ["√", "green"],
  warn: ["‼", "yellow"],
  fail: ["×", "red"],
  skip: ["·", "dim"],
};

function checkText(check: Shown, paint: Paint): string {
  const { verdict, evidence } = check;
  const [mark, style] = SHOWN[verdict];
  const [code, title] = [visible(check.code), visible(check.title)];
  const fix = check.fix === null ? null : visible(check.fix);
  if (fix === null) return `  ${paint(style, mark)} ${title}${paint("dim", `: ${visible(evidence)}`)}\n`;
  const where = `docs/checks.md#${code.toLowerCase()}`;
  return `  ${paint(style, mark)} ${title}   ${code}\n      ${visible(evidence)}\n      fix: ${fix}   see ${where}\n`;
}

function closing(checks: readonly Shown[]): string {
  const count = (verdict: CheckVerdict) => checks.filter((check) => check.verdict === verdict).length;
  const warnings = count("warn");
  return `${count("ok")} passed, ${warnings} ${warnings === 1 ? "warning" : "warnings"}, ${count("fail")} failed, ${count("skip")} not known\n`;
}
