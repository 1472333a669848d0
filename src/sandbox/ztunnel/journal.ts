// SPDX-License-Identifier: Apache-2.0
// What the stand-in tells the world: lines in ztunnel's log format, and the same facts as JSON events
// for the demo and the checks.

export type Level = "debug" | "info" | "warn" | "error";

/** A bare value is printed as it is (addresses, numbers), a quoted one like Rust prints a string. */
export type FieldValue = string | number | { readonly quoted: string } | undefined;
export type Fields = Readonly<Record<string, FieldValue>>;

export type StandInEvent = { readonly event: string } & Readonly<Record<string, unknown>>;

/** Marks a value that ztunnel prints in quotes. */
export function quoted(text: string | undefined): FieldValue {
  return text === undefined || text === "" ? undefined : { quoted: text };
}

export class Journal {
  constructor(
    private readonly writeLine: (line: string) => void,
    private readonly writeEvent: (event: StandInEvent) => void = () => {},
    private readonly now: () => Date = () => new Date(),
  ) {}

  /** One line: time, level, target, message and fields, separated by tabs. Debug lines are not printed. */
  log(level: Level, target: string, message: string, fields: Fields = {}): void {
    if (level === "debug") return;
    const texts = Object.entries(fields).flatMap(([name, value]) => {
      if (value === undefined) return [];
      return [`${name}=${typeof value === "object" ? JSON.stringify(value.quoted) : value}`];
    });
    const parts = [this.now().toISOString(), level, target, message, ...(texts.length > 0 ? [texts.join(" ")] : [])];
    this.writeLine(parts.join("\t"));
  }

  event(event: StandInEvent): void {
    this.writeEvent({ ...event, time: this.now().toISOString() });
  }
}
