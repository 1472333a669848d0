// SPDX-License-Identifier: Apache-2.0
import { marked, type Token } from "marked";

/** A command line that a page shows, whoever's it is. */
export interface ShownLine {
  /** As it would be typed: without prompt and comment, with the lines that it goes on in. */
  readonly text: string;
  /** Name of the transcript that it is part of. */
  readonly transcript: string | undefined;
}

/** One command line of ours that a page shows. */
export interface ShownCommand {
  /** Without the program's name. */
  readonly argv: readonly string[];
  readonly text: string;
}

const TRANSCRIPT = /^<!-- transcript: ([a-z0-9-]+) -->\s*$/;
/** In a block that shows what is printed, too: after a prompt, or ours on a line of its own or run by another program. */
const PROMPTED = /^\s*\$ (.*)$/;
const OURS = /^\s*((?:ambient-cni|.* -- ambient-cni) (?:--)?[a-z].*)$/;
/** In prose that has no code: what the checks say to do about them. */
const IN_PROSE = /\bambient-cni [a-z][a-z-]*(?: (?:POD|--[a-z-]+))+|\b(?:helm upgrade|kubectl -n) [^;,]*[^;,.]/g;

/**
 * Every command line in a page: the lines of shell blocks, those of other blocks that were typed, and code in a line of text
 * that has several words, the first of which could be a program. Names and settings there look like commands too: who
 * asks must know them.
 */
export function linesIn(markdown: string): ShownLine[] {
  const shown: ShownLine[] = [];
  let above = "";
  marked.walkTokens(marked.lexer(markdown), (token: Token) => {
    const transcript = TRANSCRIPT.exec(above)?.[1];
    if (token.type === "code") {
      const lines = String(token.text)
        .replaceAll(/\\\n\s*/g, "")
        .split("\n");
      const typed =
        token.lang === "sh" ? lines : lines.flatMap((line) => (PROMPTED.exec(line) ?? OURS.exec(line))?.[1] ?? []);
      shown.push(...typed.map((text) => ({ text: bare(text), transcript })));
    } else if (token.type === "codespan") {
      const text = bare(String(token.text));
      if (/^[a-z][a-z0-9-]* \S/.test(text)) shown.push({ text, transcript: undefined });
    } else if (token.type === "text" && !("tokens" in token && token.tokens !== undefined)) {
      for (const [text] of String(token.text).matchAll(IN_PROSE)) shown.push({ text, transcript: undefined });
    }
    if (token.type !== "space") above = token.type === "html" ? String(token.text) : "";
  });
  return shown.filter(({ text }) => text !== "");
}

/** Without a comment and blanks around it. */
const bare = (line: string): string => line.replace(/(?:^|\s)#(?:\s.*)?$/, "").trim();

/** Every `ambient-cni ...` in a page's code, in blocks and in lines of text; what programs print is none. */
export function commandsIn(markdown: string): ShownCommand[] {
  return linesIn(markdown).flatMap((line) => {
    const [, text = ""] = /^(?:.* -- )?ambient-cni ((?:--)?[a-z][^#;|>&]*)/.exec(line.text) ?? [];
    const words = text.replace(/\.\.\./g, "").match(/'[^']*'|"[^"]*"|\S+/g) ?? [];
    // Brackets without quotes are those of what may be left out.
    const argv = words
      .map((word) => (/^['"]/.test(word) ? word.slice(1, -1) : word.replace(/[[\]]/g, "")))
      .filter((word) => word !== "");
    return argv.length === 0 ? [] : [{ argv, text: text.trim() }];
  });
}
