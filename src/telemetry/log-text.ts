// SPDX-License-Identifier: Apache-2.0

/**
 * Upstream's console format of one of pino's JSON lines: time, level, scope, message and `key=value`
 * fields between tabs. What could end the line or look like another field is escaped, so that no
 * pod's name or error text can forge a line.
 */
export function textLine(json: string): string {
  const { time, level, scope, msg, ...fields } = JSON.parse(json) as Record<string, unknown>;
  const columns = [microseconds(String(time)), String(level), String(scope), escaped(String(msg ?? ""))];
  for (const [key, value] of Object.entries(fields)) columns.push(`${escaped(key)}=${fieldText(value)}`);
  return `${columns.join("\t")}\n`;
}

function microseconds(time: string): string {
  return time.replace(/\.(\d{3})Z$/, ".$1000Z");
}

function fieldText(value: unknown): string {
  if (typeof value !== "string") return JSON.stringify(value) ?? "";
  return /^[\w.:/@+,%[\]-]+$/.test(value) ? value : JSON.stringify(value);
}

function escaped(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, (character) => {
    const known = { "\n": "\\n", "\t": "\\t", "\r": "\\r" }[character];
    return known ?? `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}
