// SPDX-License-Identifier: Apache-2.0
import type { Section, Setting } from "./setting.ts";
import { READ_ELSEWHERE, SETTINGS } from "./table.ts";

const HEADINGS: Readonly<Record<Section, string>> = {
  Mesh: "What belongs to the mesh",
  Identity: "Who and where the agent is",
  Dataplane: "How traffic is captured",
  Paths: "Paths",
  Installer: "Installing the plugin",
  Repair: "Repair of sidecar pods",
  Telemetry: "Logs, metrics, health",
  Accepted: "Accepted without effect",
};

const INTRODUCTION = `# Settings

Generated from \`src/core/config/table.ts\` by \`npx vitest run --project unit test/unit/config/document.test.ts -u\`.

A flag of \`install-cni\` wins over the environment variable beside it, and that over the default. A variable marked ∅
counts as set even when it is empty, as with upstream's istio-cni; for every other one empty and unset are the same. All errors of a configuration are reported together, each with the variable and its value.
An unknown flag is an error; an unknown variable \`AMBIENT_CNI_...\` is a warning. What a setting without effect was given
is said once in the log; \`later\` is read and checked, but what it governs is not part of this version yet. Booleans are Go's: \`true\`, \`false\`, \`1\`, \`0\`, \`t\`, \`f\`, \`T\`, \`F\`, \`TRUE\`, \`FALSE\`, \`True\`, \`False\`.
`;

/** docs/config.md. */
export function configDocument(): string {
  const sections = Object.entries(HEADINGS).map(([section, heading]) => {
    const rows = SETTINGS.map(([, setting]) => setting).filter((setting) => setting.section === section);
    const header = "| Setting | Value | Default | Status | Effect |\n| --- | --- | --- | --- | --- |";
    return `## ${heading}\n\n${header}\n${rows.map(row).join("\n")}\n`;
  });
  const elsewhere = Object.entries(READ_ELSEWHERE).map(([name, effect]) => `| \`${name}\` | ${effect} |`);
  const diagnostics = `## For developers\n\n| Variable | Effect |\n| --- | --- |\n${elsewhere.join("\n")}\n`;
  return `${INTRODUCTION}\n${[...sections, diagnostics].join("\n")}`;
}

function row(setting: Setting<unknown>): string {
  const emptyCounts = setting.env.length > 0 && setting.whenEmpty !== setting.fallback ? " ∅" : "";
  const names = [...setting.env, ...(setting.flag === undefined ? [] : [`--${setting.flag}`])].map(
    (name) => `\`${name}\``,
  );
  const plain = setting.fallback === "" ? "" : `\`${setting.fallback}\``;
  const cells = [
    names.join(" ") + emptyCounts,
    setting.kind.name,
    setting.fallbackText ?? plain,
    setting.status,
    setting.effect,
  ];
  return `| ${cells.join(" | ")} |`;
}
