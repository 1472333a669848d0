// SPDX-License-Identifier: Apache-2.0
import type { LogSink } from "./log-sink.ts";

/** What is kept for a bug report: as many lines, and characters in all. */
const MAX_LINES = 2000;
const MAX_CHARACTERS = 512 * 1024;

/** A sink that also keeps the last lines in memory: kubelet's log files may be gone when somebody asks. */
export class RecentLines implements LogSink {
  readonly #lines: string[] = [];
  #characters = 0;

  constructor(private readonly sink: LogSink) {}

  write(line: string): void {
    this.sink.write(line);
    const text = line.endsWith("\n") ? line.slice(0, -1) : line;
    this.#lines.push(text);
    this.#characters += text.length;
    if (this.#lines.length > MAX_LINES || this.#characters > MAX_CHARACTERS) this.#shorten();
  }

  flush(): void {
    this.sink.flush();
  }

  /** Oldest first. */
  lines(): readonly string[] {
    return [...this.#lines];
  }

  /** A tenth at once: one line at a time would move all the others for each. */
  #shorten(): void {
    let drop = 0;
    let characters = this.#characters;
    const keep = { lines: MAX_LINES * 0.9, characters: MAX_CHARACTERS * 0.9 };
    while (this.#lines.length - drop > keep.lines || characters > keep.characters) {
      characters -= this.#lines[drop]?.length ?? 0;
      drop += 1;
    }
    this.#lines.splice(0, drop);
    this.#characters = characters;
  }
}
