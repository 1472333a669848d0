// SPDX-License-Identifier: Apache-2.0
import type { EnginesReport } from "../../core/report/engines.ts";
import { addCommand, type Program } from "../command.ts";
import { EXIT } from "../exit.ts";
import { sourceLine } from "../render/headline.ts";
import { type Column, table } from "../render/table.ts";
import { visible } from "../render/text.ts";

type Engine = EnginesReport["engines"][number];

export function addEngines(program: Program): void {
  addCommand(
    program,
    {
      usage: "engines",
      summary: "which ways to capture work on this node, what is lost, and what each cost to prove",
      examples: [
        "ambient-cni engines                    # the agent's self-tests, or now made ones without it",
        "ambient-cni engines -o wide            # with every loss",
        "ambient-cni engines -o json",
      ],
    },
    (command) => command,
    async (session) => {
      const source = await session.source();
      const report = await source.read("engines");
      await session.print(report, (wide) => enginesText(report, wide));
      if (source.unreachable?.trouble === "broken") return EXIT.unreachable;
      return report.engines.some(({ works }) => works) ? EXIT.ok : EXIT.problem;
    },
  );
}

export function enginesText(report: EnginesReport, wide: boolean): string {
  const columns: readonly Column<Engine>[] = [
    { title: "ENGINE", of: ({ engine }) => engine },
    { title: "WORKS", of: ({ works }) => (works ? "yes" : "no") },
    { title: "NEW PODS", of: ({ engine }) => (report.engine === null ? "?" : engine === report.engine ? "yes" : "") },
    { title: "PODS", of: ({ pods }) => String(pods) },
    { title: "SELF-TEST", of: ({ milliseconds }) => `${Math.round(milliseconds)} ms` },
    { title: "LOSSES", of: ({ losses }) => (losses.length === 0 ? "none" : String(losses.length)) },
    { title: "REASON", of: ({ reason }) => reason ?? "" },
  ];
  const losses = report.engines.flatMap(({ engine, losses: all }) =>
    all.map((loss) => `${engine}: ${visible(loss)}\n`),
  );
  return sourceLine(report) + table(columns, report.engines, wide) + (wide ? losses.join("") : "");
}
