// SPDX-License-Identifier: Apache-2.0
import type { EnginesReport } from "../../core/report/engines.ts";
import { addCommand, type Program, type Session, usageError } from "../command.ts";
import { EXIT } from "../exit.ts";
import { sourceLine } from "../render/headline.ts";
import { type Column, table } from "../render/table.ts";
import { visible } from "../render/text.ts";
import type { SessionSource } from "../source/source.ts";

type Engine = EnginesReport["engines"][number];

export function addEngines(program: Program): void {
  addCommand<{ readonly now?: boolean }>(
    program,
    {
      usage: "engines",
      summary: "which ways to capture work on this node, what is lost, and what each cost to prove",
      examples: [
        "ambient-cni engines                    # the agent's self-tests, also of one that is away",
        "ambient-cni engines -o wide            # with every loss",
        "ambient-cni engines --now              # try them all: some 800 ms, nothing stays",
      ],
    },
    (command) => command.option("--now", "try them now, on this node, whatever the agent has found"),
    async (session, { now = false }) => {
      if (now && session.globals.from !== undefined) usageError("--now tries a node, and --from reads a report");
      const source = now ? await triedNow(session) : await session.source();
      const report = await source.read("engines", { known: "1" });
      await session.print(report, (wide) => enginesText(report, wide));
      if (source.unreachable?.trouble === "broken") return EXIT.unreachable;
      return report.engines.some(({ works }) => works) ? EXIT.ok : EXIT.problem;
    },
  );
}

async function triedNow({ env }: Session): Promise<SessionSource> {
  const { openKernelSource } = await import("../source/kernel/kernel-source.ts");
  const kernel = openKernelSource(env, "tried now");
  return { read: (name) => kernel.read(name), unreachable: undefined };
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
