// SPDX-License-Identifier: Apache-2.0
import { AgentError } from "../core/errors.ts";

/** etcd refuses objects above 1.5 MiB; JSON and managedFields stay well below this. */
const MAX_ITEM = 8 * 1024 * 1024;
/** Everything but the items: kind, metadata, a continue token. */
const MAX_REST = 1024 * 1024;

const QUOTE = 0x22;
const COMMA = 0x2c;
const BACKSLASH = 0x5c;
const OPEN_LIST = 0x5b;
const CLOSE_LIST = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
const ITEMS = '"items"';

/**
 * Reads a list of the API server object by object: `onItem` gets each parsed element of the top-level
 * `items`, and the rest of the document is returned with `items` empty. A page of 500 pods parsed in
 * one piece would need 30 MB for a moment, and the process would keep them.
 * @throws AgentError KUBE_MALFORMED when it is no JSON object, or an item or the rest is too large.
 */
export async function readList(chunks: AsyncIterable<Buffer>, onItem: (item: unknown) => void): Promise<unknown> {
  const scanner = new ListScanner(onItem);
  for await (const chunk of chunks) scanner.push(chunk);
  return scanner.end();
}

/**
 * Knows just enough of JSON to tell where an item begins and ends; whether it is JSON at all is left
 * to JSON.parse.
 */
class ListScanner {
  readonly #onItem: (item: unknown) => void;
  readonly #rest = new Collector(MAX_REST, "the list without its items");
  readonly #item = new Collector(MAX_ITEM, "an item of the list");
  #depth = 0;
  #inString = false;
  #escaped = false;
  #inItems = false;
  /** The last string at depth 1, with its quotes: the key that a `[` belongs to. */
  #key = "";
  #keyBytes: number[] = [];

  constructor(onItem: (item: unknown) => void) {
    this.#onItem = onItem;
  }

  push(chunk: Buffer): void {
    // Start of the bytes in this chunk that belong to the item or to the rest.
    let start = 0;
    for (let at = 0; at < chunk.length; at++) {
      const byte = chunk[at] ?? 0;
      if (this.#inString) {
        this.#inText(byte);
        continue;
      }
      if (byte === QUOTE) {
        this.#beginText();
      } else if (byte === OPEN_OBJECT || byte === OPEN_LIST) {
        if (this.#inItems && this.#depth === 2) {
          this.#rest.add(chunk.subarray(start, at));
          start = at;
        }
        if (!this.#inItems && this.#depth === 1 && byte === OPEN_LIST && this.#key === ITEMS) this.#inItems = true;
        this.#depth += 1;
      } else if (byte === CLOSE_OBJECT || byte === CLOSE_LIST) {
        this.#depth -= 1;
        if (this.#inItems && this.#depth === 2) {
          this.#item.add(chunk.subarray(start, at + 1));
          start = at + 1;
          this.#onItem(this.#item.take());
        } else if (this.#inItems && this.#depth === 1) {
          this.#inItems = false;
          this.#key = "";
        }
      } else if (byte === COMMA && this.#inItems && this.#depth === 2) {
        // Between two items: it would make the rest invalid.
        this.#rest.add(chunk.subarray(start, at));
        start = at + 1;
      }
    }
    (this.#inItems && this.#depth > 2 ? this.#item : this.#rest).add(chunk.subarray(start));
  }

  end(): unknown {
    return this.#rest.take();
  }

  #beginText(): void {
    this.#inString = true;
    this.#keyBytes = [QUOTE];
  }

  #inText(byte: number): void {
    if (this.#depth === 1 && this.#keyBytes.length <= ITEMS.length) this.#keyBytes.push(byte);
    if (this.#escaped) this.#escaped = false;
    else if (byte === BACKSLASH) this.#escaped = true;
    else if (byte === QUOTE) {
      this.#inString = false;
      if (this.#depth === 1) this.#key = Buffer.from(this.#keyBytes).toString("latin1");
    }
  }
}

/** Bytes of one JSON document that come in pieces. */
class Collector {
  readonly #limit: number;
  readonly #what: string;
  #pieces: Buffer[] = [];
  #size = 0;

  constructor(limit: number, what: string) {
    this.#limit = limit;
    this.#what = what;
  }

  add(piece: Buffer): void {
    if (piece.length === 0) return;
    this.#size += piece.length;
    if (this.#size > this.#limit) {
      throw new AgentError("KUBE_MALFORMED", `${this.#what} has more than ${this.#limit} bytes`);
    }
    this.#pieces.push(piece);
  }

  /** Parses what was collected, and begins anew. */
  take(): unknown {
    const text = Buffer.concat(this.#pieces, this.#size).toString("utf8");
    this.#pieces = [];
    this.#size = 0;
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new AgentError(
        "KUBE_MALFORMED",
        `${this.#what} is no JSON: ${JSON.stringify(text.slice(0, 80))}`,
        undefined,
        {
          cause: error,
        },
      );
    }
  }
}
