// SPDX-License-Identifier: Apache-2.0
import { AgentError, messageOf } from "../../core/errors.ts";
import { REDACTED, redact, redactJson, redactStrictly, redactValue } from "../../core/report/redact.ts";
import { visible } from "../render/text.ts";
import { ERRORS, ITEM_MAX_BYTES, REPORT_MAX_BYTES } from "./layout.ts";

export interface CollectionOptions {
  /** Leave out also what people wrote into annotations and settings, and what may hold it. */
  readonly strict: boolean;
  /** Known credentials, wherever they may stand. */
  readonly secrets?: readonly string[];
  /** Nothing is begun after as many ms. */
  readonly budgetMs: number;
}

/** A line of errors.txt holds no more. */
const ERROR_MAX = 1000;

/** Files of a report by path, each without credentials, and what could not be had. Bounded in size and time. */
export class Collection {
  readonly #items = new Map<string, Buffer>();
  readonly #errors: string[] = [];
  readonly #omitted: string[] = [];
  readonly #until: number;
  #bytes = 0;

  constructor(private readonly options: CollectionOptions) {
    this.#until = performance.now() + options.budgetMs;
  }

  get errors(): readonly string[] {
    return this.#errors;
  }

  /** Values that somebody gave are left out. */
  get strict(): boolean {
    return this.options.strict;
  }

  /** The time is over: nothing is begun any more. */
  get late(): boolean {
    return performance.now() >= this.#until;
  }

  /** Paths of what was collected. */
  get paths(): readonly string[] {
    return [...this.#items.keys()];
  }

  /** Collects one file; `make` returns its text, or undefined for none. What it throws is noted, and is no reason to stop. */
  async text(path: string, make: () => string | undefined | Promise<string | undefined>): Promise<void> {
    await this.attempt(path, async () => {
      const text = await make();
      if (text !== undefined) this.#add(path, redact(text));
    });
  }

  /** Collects one JSON file of what `make` returns; bigints are written as text. */
  async json(path: string, make: () => unknown): Promise<void> {
    await this.attempt(path, async () => {
      const plain: unknown = JSON.parse(
        JSON.stringify(make(), (_key, value) => (typeof value === "bigint" ? String(value) : value)),
      );
      this.#add(path, `${JSON.stringify(redactValue(plain), null, 1)}\n`);
    });
  }

  /** Collects a file that is JSON, or should be. */
  async jsonText(path: string, make: () => string | Promise<string>): Promise<void> {
    await this.attempt(path, async () => this.#add(path, redactJson(await make())));
  }

  /** Collects one JSON document, and returns it as it was made; undefined when it can't be had. */
  async document<T>(path: string, make: () => Promise<T>): Promise<T | undefined> {
    return this.attempt(path, async () => {
      const document = await make();
      this.#add(path, `${JSON.stringify(redactValue(document, this.options.strict), null, 2)}\n`);
      return document;
    });
  }

  /**
   * Whether a file is left out because it may hold anything, and nobody can tell what in it is a value: logs, and
   * other programs' configurations, with `strict`. errors.txt says so.
   */
  omits(path: string): boolean {
    if (this.strict) this.#omitted.push(`${path}: left out by --redact`);
    return this.strict;
  }

  /** Runs a step; when it fails or the time is over, that is noted under `path`. */
  async attempt<T>(path: string, step: () => Promise<T>): Promise<T | undefined> {
    try {
      if (this.late) throw new AgentError("NO_TIME", "no time left");
      return await step();
    } catch (error) {
      this.fail(path, messageOf(error));
      return undefined;
    }
  }

  fail(path: string, why: string): void {
    const line = `${path}: ${why}`;
    const safe = this.strict ? redactStrictly(line) : redact(line);
    this.#errors.push(visible(this.#withoutKnown(safe)).slice(0, ERROR_MAX));
  }

  /** Everything, with errors.txt. */
  files(): ReadonlyMap<string, Buffer> {
    const lines = [...this.#errors, ...this.#omitted].map((line) => `${line}\n`);
    return new Map([...this.#items, [ERRORS, Buffer.from(lines.join(""))]]);
  }

  #add(path: string, text: string): void {
    const bytes = Buffer.from(this.#withoutKnown(text));
    if (bytes.length > ITEM_MAX_BYTES) throw new AgentError("TOO_LARGE", `${bytes.length} bytes are too many`);
    // Half of what a reader takes: headers and errors.txt need some too.
    if (this.#bytes + bytes.length > REPORT_MAX_BYTES / 2) throw new AgentError("TOO_LARGE", "the report is full");
    this.#bytes += bytes.length;
    this.#items.set(path, bytes);
  }

  /** As it is, and as JSON has it. */
  #withoutKnown(text: string): string {
    return (this.options.secrets ?? []).reduce((shorter, secret) => {
      const json = JSON.stringify(secret).slice(1, -1);
      return shorter.replaceAll(secret, REDACTED).replaceAll(json, REDACTED);
    }, text);
  }
}
