// SPDX-License-Identifier: Apache-2.0
import type { SettingReport, SettingsReport } from "../../core/report/settings.ts";
import { addCommand, type Program } from "../command.ts";
import { EXIT } from "../exit.ts";
import { sourceLine } from "../render/headline.ts";
import { type Column, table } from "../render/table.ts";

interface ConfigOptions {
  readonly changed?: boolean;
}

/** A list of selectors would make every line of the table as long as itself. */
const SHOWN = 60;

export function addConfig(program: Program): void {
  addCommand<ConfigOptions>(
    program,
    {
      usage: "config",
      summary: "the agent's settings with their values, and where each comes from",
      examples: [
        "ambient-cni config --changed           # only what is not a default",
        "ambient-cni config -o wide             # whole values",
        "ambient-cni config -o yaml",
      ],
    },
    (command) => command.option("--changed", "only settings that a flag or variable gives"),
    async (session, { changed }) => {
      const source = await session.source();
      const report = await source.read("config");
      const settings = report.settings.filter(({ origin }) => !changed || origin !== "default");
      const shown = { ...report, settings };
      await session.print(shown, (wide) => settingsText(shown, wide));
      return source.unreachable?.trouble === "broken" ? EXIT.unreachable : EXIT.ok;
    },
  );
}

export function settingsText(report: SettingsReport, wide: boolean): string {
  const columns: readonly Column<SettingReport>[] = [
    { title: "SETTING", of: ({ setting }) => setting },
    { title: "ORIGIN", of: ({ origin }) => origin },
    { title: "STATUS", of: ({ status }) => status, wide: true },
    { title: "VALUE", of: ({ value }) => (wide || value.length <= SHOWN ? value : `${value.slice(0, SHOWN - 3)}...`) },
  ];
  return sourceLine(report) + table(columns, report.settings, wide);
}
