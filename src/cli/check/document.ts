// SPDX-License-Identifier: Apache-2.0
import { CATEGORIES } from "./check.ts";
import { CHECKS } from "./checks.ts";

const INTRODUCTION = `# Checks

Generated from the checks themselves (\`src/cli/check/\`) by \`npx vitest run --project unit test/unit/cli/checks.test.ts -u\`.

\`ambient-cni check\` runs them all on the node, \`ambient-cni check --pre\` those that make sense before the agent is installed.
Each tries or reads the thing itself. Codes stay: a code is never used for anything else again.
`;

/** docs/checks.md. */
export function checksDocument(): string {
  const sections = CATEGORIES.map((category) => {
    const entries = CHECKS.filter((check) => check.category === category).map(
      ({ code, title, pre, about, fix }) =>
        `\n### ${code}\n\n**${title}**${pre ? " (also with `--pre`)" : ""}\n\n${about}\n\nIf not: ${fix}.\n`,
    );
    return `\n## ${category}\n${entries.join("")}`;
  });
  return `${INTRODUCTION}${sections.join("")}`;
}
