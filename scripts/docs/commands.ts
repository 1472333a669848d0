// SPDX-License-Identifier: Apache-2.0
import { marked, type Token } from "marked";

/** One command line of ours that a page shows. */
export interface ShownCommand {
  /** Without the program's name. */
  readonly argv: readonly string[];
  readonly text: string;
}

/** Every `ambient-cni ...` in a page's code, in blocks and in lines of text; what programs print is none. */
export function commandsIn(markdown: string): ShownCommand[] {
  const lines: string[] = [];
  marked.walkTokens(marked.lexer(markdown), (token: Token) => {
    if (token.type === "code") lines.push(...String(token.text).split("\n"));
    if (token.type === "codespan") lines.push(String(token.text));
  });
  return lines.flatMap((line) => {
    // On a line of its own, after a prompt, or run by another program: `kubectl exec ... -- ambient-cni status`.
    const [, text = ""] = /^(?:\s*(?:\$ )?|.* -- )ambient-cni ([a-z][^#;|>&]*)/.exec(line) ?? [];
    const words = text.replace(/\.\.\./g, "").match(/'[^']*'|"[^"]*"|\S+/g) ?? [];
    // Brackets without quotes are those of what may be left out.
    const argv = words
      .map((word) => (/^['"]/.test(word) ? word.slice(1, -1) : word.replace(/[[\]]/g, "")))
      .filter((word) => word !== "");
    return argv.length === 0 ? [] : [{ argv, text: text.trim() }];
  });
}
