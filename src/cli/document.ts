// SPDX-License-Identifier: Apache-2.0
import type { Command } from "commander";
import { subcommandsOf } from "./help.ts";

const INTRODUCTION = `# Commands

Generated from the command tree (\`src/cli/commands/\`) by \`npx vitest run --project unit test/unit/cli/document.test.ts -u\`.

\`ambient-cni\` is the agent's own program: on the node, or in its pod by
\`kubectl -n istio-system exec ds/istio-cni-node -- ambient-cni status\`. Nouns read and never change anything; verbs write.

It asks the agent on \`ambient-cni.sock\` in CNI_AGENT_RUN_DIR (AMBIENT_CNI_DEBUG_SOCKET, \`--socket\`), as root. When nobody
listens there, or whoever does can't be understood, it reads the node itself (processes, network namespaces, what is pinned
and written in them) and says so: \`source: kernel (agent unreachable: ECONNREFUSED ...)\`. Without the agent the kernel shows
which pods are captured, not which should be; names come from kubelet's log directories.

| option everywhere | |
| --- | --- |
| \`-o, --output table\\|wide\\|json\\|yaml\` | JSON and YAML are one document with \`schemaVersion\`; [its fields](json.md) stay |
| \`--no-color\` | as NO_COLOR, or output that is no terminal |
| \`--socket PATH\` | the agent's socket |
| \`--timeout TIME\` | how long to wait for the agent: \`500ms\`, \`5s\`, \`2m\` |
| \`--from TGZ\` | read a report of \`ambient-cni bugreport\` in place of the node, anywhere: \`status\`, \`pods\`, \`engines\`, \`config\`, \`version\`, \`inspect\`, \`check\` and \`log\`; not with \`--wait\`, \`--watch\`, \`--now\`, \`--netns-shell\`, \`--pre\` or new log levels. \`monitor --from\` reads what \`monitor -o json\` wrote; the others refuse it |

| exit status | |
| --- | --- |
| 0 | fine |
| 1 | a problem was found, or the command failed |
| 2 | wrong usage |
| 3 | the agent could not be asked, and should have been: \`status\` without an agent, what only the agent knows, or somebody else on its socket |
| 4 | not permitted |

A pod is written as \`[namespace/]name\`, uid, address, or network namespace (its inode as tables show it), or as the beginning of
a name or uid that only one pod has. The examples are of [the playground](START.md) and can be typed in its shells as they are.
`;

/** docs/cli.md. */
export function cliDocument(root: Command): string {
  return `${INTRODUCTION}${[...sections(root, [root.name()])].join("")}`;
}

function* sections(command: Command, path: readonly string[]): Generator<string> {
  for (const sub of subcommandsOf(command)) {
    const full = [...path, sub.name()];
    yield `\n## ${full.join(" ")}\n\n\`\`\`\n${sub.helpInformation()}\`\`\`\n`;
    yield* sections(sub, full);
  }
}
