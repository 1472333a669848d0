// SPDX-License-Identifier: Apache-2.0

/**
 * Text of somebody else's making (error messages, names from the node) with what moves a terminal's
 * cursor or ends the line made visible.
 */
export function visible(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, (character) => {
    if (character === "\n") return " ";
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}

const UNITS: readonly (readonly [letter: string, seconds: number])[] = [
  ["d", 86_400],
  ["h", 3600],
  ["m", 60],
  ["s", 1],
];

/** A time span in at most two units, as kubectl writes it: `41s`, `5m10s`, `3d4h`. */
export function span(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const first = UNITS.findIndex(([, size]) => whole >= size);
  const [letter, size] = UNITS[first] ?? ["s", 1];
  const next = UNITS[first + 1];
  const rest = next === undefined ? 0 : Math.floor((whole % size) / next[1]);
  // Ten of the larger unit: the smaller one is noise.
  const small = next === undefined || rest === 0 || whole >= 10 * size ? "" : `${rest}${next[0]}`;
  return `${Math.floor(whole / size)}${letter}${small}`;
}

/** Age of an RFC 3339 time, seen from another one; "-" where it is not known. */
export function age(since: string | null, takenAt: string): string {
  if (since === null) return "-";
  const ms = Date.parse(takenAt) - Date.parse(since);
  return Number.isFinite(ms) ? span(ms / 1000) : "-";
}
