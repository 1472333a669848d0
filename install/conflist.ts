// SPDX-License-Identifier: Apache-2.0
// Edits the text of a `.conflist`. Every byte that is not ours stays as it was: key order, indentation
// and line ends belong to whoever wrote the file. A text has one character per byte (go-json.ts).
import { isDeepStrictEqual } from "node:util";
import { PLUGIN_NAME } from "../src/core/constants.ts";
import { asciiJson, invalidConf } from "./go-json.ts";
import { JsonSpans, type ObjectSpan, type Span } from "./json-spans.ts";
import { chainVersion, type PluginEntry, parseList, parseSingle } from "./netconf.ts";

interface Plugin {
  readonly value: PluginEntry;
  readonly type: string;
  readonly span: Span;
}

/**
 * The text with our entry in the chain: an existing one is replaced where it stands, otherwise it
 * becomes the last plugin. Unchanged when the entry is there already with the same content.
 * @throws AgentError CNI_CONF_INVALID when the text is no configuration list
 */
export function merge(text: string, entry: PluginEntry): string {
  const plugins = parse(text);
  const ours = plugins.filter(({ type }) => type === PLUGIN_NAME);
  const [first, ...surplus] = ours;
  if (first !== undefined) {
    if (surplus.length > 0) return merge(remove(text, surplus[0]?.span ?? first.span), entry);
    if (isDeepStrictEqual(first.value, entry)) return text;
    return splice(text, first.span, print(text, entry, first.span.start));
  }
  const last = plugins.at(-1);
  if (last === undefined) throw invalidConf("plugins is empty");
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
  const ours = plugins.find(({ type }) => type === PLUGIN_NAME);
  if (ours === undefined) return text;
  if (plugins.every(({ type }) => type === PLUGIN_NAME)) return undefined;
  return unmerge(remove(text, ours.span));
}

/**
 * A configuration of one plugin as the list that libcni makes of it. The plugin's text is in there as it
 * is: its own `name` and `cniVersion` may stay, because runtimes put the list's over them.
 * @throws AgentError CNI_CONF_INVALID when the text is no configuration of one plugin
 */
export function asList(text: string): string {
  const { name, cniVersion } = parseSingle(text);
  const { start, end } = new JsonSpans(text).root();
  const plugin = text.slice(start, end);
  const lineEnd = plugin.includes("\r\n") ? "\r\n" : "\n";
  const lines = [
    "{",
    `  "cniVersion": ${asciiJson(chainVersion(cniVersion))},`,
    // Character for byte, like the text around it.
    `  "name": ${JSON.stringify(name)},`,
    '  "plugins": [',
    `    ${plugin}`,
    "  ]",
    "}",
    "",
  ];
  return lines.join(lineEnd);
}

function parse(text: string): Plugin[] {
  const { plugins, types } = parseList(text);
  if (plugins.length === 0) throw invalidConf("plugins is missing");
  const spans = new JsonSpans(text);
  const items = spans.array(memberOf(spans.object(spans.root()), "plugins")).items;
  return plugins.map((value, index) => {
    const [span, type] = [items[index], types[index]];
    if (span === undefined || type === undefined) throw invalidConf("plugins could not be located");
    return { value, type, span };
  });
}

/** With equal keys the last one counts, as JSON.parse has it. */
function memberOf(object: ObjectSpan, key: string): Span {
  const member = object.members.filter((each) => each.key === key).at(-1);
  if (member === undefined) throw invalidConf(`${key} is missing`);
  return member.value;
}

/** Removes one of several items together with the comma and space that set it off. */
function remove(text: string, span: Span): string {
  const plugins = parse(text);
  const index = plugins.findIndex((plugin) => plugin.span.start === span.start);
  const before = plugins[index - 1];
  if (before !== undefined) return splice(text, { start: before.span.end, end: span.end }, "");
  const after = plugins[index + 1];
  if (after === undefined) throw invalidConf("its only plugin can't be removed");
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
  if (newline < 0) return asciiJson(entry);
  const indent = lead.slice(newline + 1);
  const printed = asciiJson(entry, unitOf(text, indent));
  const lineEnd = lead.includes("\r\n") ? "\r\n" : "\n";
  return printed.split("\n").join(lineEnd + indent);
}

/** One step of indentation, from the shallowest indented line of the file. */
function unitOf(text: string, itemIndent: string): string {
  const steps = [...text.matchAll(/\n([ \t]+)\S/g)].map((match) => match[1] ?? "");
  const unit = steps.reduce((least, step) => (step.length < least.length ? step : least), itemIndent);
  return unit === "" ? "  " : unit.slice(0, 10);
}
