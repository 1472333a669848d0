// SPDX-License-Identifier: Apache-2.0
import type { ClientVersionsReport, VersionsReport } from "../../core/report/versions.ts";
import { addCommand, type Program } from "../command.ts";
import { EXIT, VERSION } from "../exit.ts";
import { sourceText } from "../render/headline.ts";
import { aligned } from "../render/table.ts";
import { visible } from "../render/text.ts";

export function addVersion(program: Program): void {
  addCommand(
    program,
    {
      usage: "version",
      summary: "versions of this program, of the agent, and of what they stand on",
      examples: [
        "ambient-cni version",
        "ambient-cni version -o json",
        "ambient-cni --version                  # of this program alone",
      ],
    },
    (command) => command,
    async (session) => {
      const source = await session.source();
      const report = await source.read("version");
      const shown: ClientVersionsReport = { client: VERSION, ...report };
      await session.print(shown, () => versionText(VERSION, report));
      return source.unreachable?.trouble === "broken" ? EXIT.unreachable : EXIT.ok;
    },
  );
}

export function versionText(client: string, report: VersionsReport): string {
  const { agent, kernel, nodejs, libbpf, bpfSchema, bpfGeneration, source } = report;
  return aligned(
    [
      ["client", client],
      ["agent", agent ?? `- (${sourceText(source)})`],
      ["kernel", kernel],
      ["node.js", nodejs],
      ["libbpf", libbpf],
      ["bpf", `schema ${bpfSchema}, programs ${bpfGeneration ?? "-"}`],
    ].map((line) => line.map(visible)),
  );
}
