// SPDX-License-Identifier: Apache-2.0
import { AgentError, messageOf } from "../../core/errors.ts";
import { redact, redactValue } from "../../core/report/redact.ts";
import { visible } from "../render/text.ts";
import { ERRORS, ITEM_MAX_BYTES, REPORT_MAX_BYTES } from "./layout.ts";

export interface CollectionOptions {
  /** Leave out also what people wrote into annotations and settings. */
  readonly strict: boolean;
  /** Nothing is begun after as many ms. */
  readonly budgetMs: number;
}

/** A line of errors.txt holds no more. */
const ERROR_MAX = 1000;

/** Files of a report by path, each without credentials, and what could not be had. Bounded in size and time. */
export class Collection {
  readonly #items = new Map<string, Buffer>();
  readonly #errors: string[] = [];
  readonly #until: number;
  #bytes = 0;

  constructor(private readonly options: CollectionOptions) {
    this.#until = performance.now() + options.budgetMs;
  }

  get errors(): readonly string[] {
    return this.#errors;
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

  /** Collects one JSON document, and returns it as it was made; undefined when it can't be had. */
  async document<T>(path: string, make: () => Promise<T>): Promise<T | undefined> {
    return this.attempt(path, async () => {
      const document = await make();
      this.#add(path, `${JSON.stringify(redactValue(document, this.options.strict), null, 2)}\n`);
      return document;
    });
  }

  /** Runs a step; when it fails or the time is over, that is noted under `path`. */
  async attempt<T>(path: string, step: () => Promise<T>): Promise<T | undefined> {
    try {
      if (performance.now() >= this.#until) throw new AgentError("NO_TIME", "no time left");
      return await step();
    } catch (error) {
      this.fail(path, messageOf(error));
      return undefined;
    }
  }

  fail(path: string, why: string): void {
    this.#errors.push(visible(redact(`${path}: ${why}`)).slice(0, ERROR_MAX));
  }

  /** Everything, with errors.txt. */
  files(): ReadonlyMap<string, Buffer> {
    return new Map([...this.#items, [ERRORS, Buffer.from(this.#errors.map((line) => `${line}\n`).join(""))]]);
  }

  #add(path: string, text: string): void {
    const bytes = Buffer.from(text);
    if (bytes.length > ITEM_MAX_BYTES) throw new AgentError("TOO_LARGE", `${bytes.length} bytes are too many`);
    // Half of what a reader takes: headers and errors.txt need some too.
    if (this.#bytes + bytes.length > REPORT_MAX_BYTES / 2) throw new AgentError("TOO_LARGE", "the report is full");
    this.#bytes += bytes.length;
    this.#items.set(path, bytes);
  }
}
