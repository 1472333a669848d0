// SPDX-License-Identifier: Apache-2.0

/** Where a value stands in its text: `text.slice(start, end)` is the value. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

export interface ObjectSpan extends Span {
  readonly members: readonly { readonly key: string; readonly value: Span }[];
}

export interface ArraySpan extends Span {
  readonly items: readonly Span[];
}

const SPACE = /[ \t\r\n]*/y;
const STRING = /"[^"\\]*(?:\\.[^"\\]*)*"/y;
/** A number or one of true, false, null. */
const WORD = /[^ \t\r\n,\]}]+/y;

/**
 * Finds values in the text of a JSON document, so that an edit can leave all other bytes alone. The
 * text must be valid JSON (JSON.parse says so, and better); one level is looked at per call.
 */
export class JsonSpans {
  constructor(private readonly text: string) {}

  /** The document's value, without the space around it. */
  root(): Span {
    const start = this.skip(SPACE, 0);
    return { start, end: this.endOf(start) };
  }

  object(span: Span): ObjectSpan {
    const members: { key: string; value: Span }[] = [];
    let at = this.skip(SPACE, span.start + 1);
    while (this.text[at] !== "}") {
      const keyEnd = this.skip(STRING, at);
      const key: unknown = JSON.parse(this.text.slice(at, keyEnd));
      const colon = this.skip(SPACE, keyEnd);
      const value = this.valueFrom(colon + 1);
      members.push({ key: String(key), value });
      at = this.afterComma(value.end);
    }
    return { ...span, members };
  }

  array(span: Span): ArraySpan {
    const items: Span[] = [];
    let at = this.skip(SPACE, span.start + 1);
    while (this.text[at] !== "]") {
      const item = this.valueFrom(at);
      items.push(item);
      at = this.afterComma(item.end);
    }
    return { ...span, items };
  }

  private valueFrom(at: number): Span {
    const start = this.skip(SPACE, at);
    return { start, end: this.endOf(start) };
  }

  private afterComma(at: number): number {
    const next = this.skip(SPACE, at);
    return this.text[next] === "," ? this.skip(SPACE, next + 1) : next;
  }

  private endOf(start: number): number {
    const first = this.text[start];
    if (first === '"') return this.skip(STRING, start);
    if (first !== "{" && first !== "[") return this.skip(WORD, start);
    let depth = 0;
    for (let at = start; at < this.text.length; at++) {
      const char = this.text[at];
      if (char === '"') at = this.skip(STRING, at) - 1;
      else if (char === "{" || char === "[") depth++;
      else if (char === "}" || char === "]") {
        depth--;
        if (depth === 0) return at + 1;
      }
    }
    throw new Error(`no end of the value at offset ${start}`);
  }

  private skip(pattern: RegExp, at: number): number {
    pattern.lastIndex = at;
    if (!pattern.test(this.text)) throw new Error(`unexpected text at offset ${at}`);
    return pattern.lastIndex;
  }
}
