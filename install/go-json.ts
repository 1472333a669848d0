// SPDX-License-Identifier: Apache-2.0
// JSON as Go's encoding/json takes it: with it runtimes decide which configurations are valid. Texts here
// hold one character per byte (latin1), so that bytes which are no UTF-8, which Go lets pass, survive.
import { AgentError, messageOf } from "../src/core/errors.ts";

/** encoding/json's maxNestingDepth. */
const MAX_DEPTH = 10_000;
const UTF8_BOM = "\u00ef\u00bb\u00bf";
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|[[\]{}]|-?\d[^\s,\]}]*/g;

/** @throws AgentError CNI_CONF_INVALID */
export function parseGoJson(text: string): unknown {
  if (text.startsWith(UTF8_BOM)) throw invalidConf("it starts with a byte order mark");
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw invalidConf(`it is not JSON: ${messageOf(error)}`);
  }
  let depth = 0;
  for (const [token] of text.matchAll(TOKEN)) {
    if (token === "{" || token === "[") {
      if (++depth > MAX_DEPTH) throw invalidConf(`it nests deeper than ${MAX_DEPTH} levels`);
    } else if (token === "}" || token === "]") depth--;
    else if (!token.startsWith('"') && !Number.isFinite(Number(token))) throw invalidConf("a number is too large");
  }
  return json;
}

/** JSON in ASCII alone: right in a latin1 text as well as in UTF-8. */
export function asciiJson(value: unknown, indent?: string): string {
  const escaped = (char: string) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return JSON.stringify(value, undefined, indent).replace(/[\u007f-\uffff]/g, escaped);
}

export function invalidConf(what: string): AgentError {
  return new AgentError("CNI_CONF_INVALID", `not a CNI configuration: ${what}`, "correct the file or remove it");
}
