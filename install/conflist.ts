// SPDX-License-Identifier: Apache-2.0
// Edits the text of a `.conflist`. Every byte that is not ours stays as it was: key order, indentation
// and line ends belong to whoever wrote the file.
import { isDeepStrictEqual } from "node:util";
import * as v from "valibot";
import { PLUGIN_NAME } from "../src/core/constants.ts";
import { AgentError, messageOf } from "../src/core/errors.ts";
import { JsonSpans, type ObjectSpan, type Span } from "./json-spans.ts";

export type PluginEntry = Readonly<Record<string, unknown>>;

const CONFLIST = v.looseObject({
  plugins: v.pipe(
    v.array(v.looseObject({ type: v.pipe(v.string(), v.nonEmpty("must not be empty")) }, "must be an object")),
    v.minLength(1, "must not be empty"),
  ),
});

interface Plugin {
  readonly value: PluginEntry;
  readonly span: Span;
}

/**
 * The text with our entry in the chain: an existing one is replaced where it stands, otherwise it
 * becomes the last plugin. Unchanged when the entry is there already with the same content.
 * @throws AgentError CNI_CONF_INVALID when the text is no configuration list
 */
export function merge(text: string, entry: PluginEntry): string {
  const plugins = parse(text);
  const ours = plugins.filter(({ value }) => value.type === PLUGIN_NAME);
  const [first, ...surplus] = ours;
  if (first !== undefined) {
    if (surplus.length > 0) return merge(remove(text, surplus[0]?.span ?? first.span), entry);
    if (isDeepStrictEqual(first.value, entry)) return text;
    return splice(text, first.span, print(text, entry, first.span.start));
  }
  const last = plugins.at(-1);
  if (last === undefined) throw invalid("plugins is empty");
  // What stands before the last plugin tells how the next one is set off: a space or a line's indent.
  const lead = leadOf(text, last.span.start);
  return splice(text, { start: last.span.end, end: last.span.end }, `,${lead}${print(text, entry, last.span.start)}`);
}

/**
 * The text without our entries; for a text that `merge` appended to, exactly the one before. When ours
 * is the only plugin, `undefined`: nothing is left to keep.
 * @throws AgentError CNI_CONF_INVALID when the text is no configuration list
 */
export function unmerge(text: string): string | undefined {
  const plugins = parse(text);
  const ours = plugins.find(({ value }) => value.type === PLUGIN_NAME);
  if (ours === undefined) return text;
  if (plugins.every(({ value }) => value.type === PLUGIN_NAME)) return undefined;
  return unmerge(remove(text, ours.span));
}

/** Types of the plugins, in order. @throws AgentError CNI_CONF_INVALID */
export function pluginTypes(text: string): string[] {
  return parse(text).map(({ value }) => String(value.type));
}

function parse(text: string): Plugin[] {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw invalid(`it is not JSON: ${messageOf(error)}`);
  }
  const result = v.safeParse(CONFLIST, json, { abortEarly: true });
  if (!result.success) {
    const [issue] = result.issues;
    throw invalid(`${v.getDotPath(issue) ?? "the document"}: ${issue.message}`);
  }
  const spans = new JsonSpans(text);
  const items = spans.array(memberOf(spans.object(spans.root()), "plugins")).items;
  return result.output.plugins.map((value, index) => {
    const span = items[index];
    if (span === undefined) throw invalid("plugins could not be located");
    return { value, span };
  });
}

/** With equal keys the last one counts, as JSON.parse has it. */
function memberOf(object: ObjectSpan, key: string): Span {
  const member = object.members.filter((each) => each.key === key).at(-1);
  if (member === undefined) throw invalid(`${key} is missing`);
  return member.value;
}

/** Removes one of several items together with the comma and space that set it off. */
function remove(text: string, span: Span): string {
  const plugins = parse(text);
  const index = plugins.findIndex((plugin) => plugin.span.start === span.start);
  const before = plugins[index - 1];
  if (before !== undefined) return splice(text, { start: before.span.end, end: span.end }, "");
  const after = plugins[index + 1];
  if (after === undefined) throw invalid("its only plugin can't be removed");
  return splice(text, { start: span.start, end: after.span.start }, "");
}

function splice(text: string, span: Span, replacement: string): string {
  return text.slice(0, span.start) + replacement + text.slice(span.end);
}

/** White space before an offset. */
function leadOf(text: string, offset: number): string {
  let start = offset;
  while (start > 0 && " \t\r\n".includes(text.charAt(start - 1))) start--;
  return text.slice(start, offset);
}

/** Prints the entry in the style of the item that starts at `offset`: on one line, or with its indent. */
function print(text: string, entry: PluginEntry, offset: number): string {
  const lead = leadOf(text, offset);
  const newline = lead.lastIndexOf("\n");
  if (newline < 0) return JSON.stringify(entry);
  const indent = lead.slice(newline + 1);
  const printed = JSON.stringify(entry, undefined, unitOf(text, indent));
  const lineEnd = lead.includes("\r\n") ? "\r\n" : "\n";
  return printed.split("\n").join(lineEnd + indent);
}

/** One step of indentation, from the shallowest indented line of the file. */
function unitOf(text: string, itemIndent: string): string {
  const steps = [...text.matchAll(/\n([ \t]+)\S/g)].map((match) => match[1] ?? "");
  const unit = steps.reduce((least, step) => (step.length < least.length ? step : least), itemIndent);
  return unit === "" ? "  " : unit.slice(0, 10);
}

function invalid(what: string): AgentError {
  return new AgentError("CNI_CONF_INVALID", `not a CNI configuration list: ${what}`, "correct the file or remove it");
}
