// SPDX-License-Identifier: Apache-2.0
import { messageOf } from "../core/errors.ts";

export interface Check {
  /** Stable word, e.g. `hbone-encrypted`. */
  readonly id: string;
  readonly title: string;
  readonly passed: boolean;
  /** What was seen. */
  readonly evidence: string;
  readonly milliseconds: number;
}

/** Collects the checks of one run, each with the evidence for its verdict. */
export class Checks {
  readonly all: Check[] = [];

  constructor(private readonly shown: (check: Check) => void) {}

  /**
   * Runs one check. It passes when `body` resolves, with the text it returns as evidence; a rejection
   * fails it and the next ones go on.
   */
  async check(id: string, title: string, body: () => Promise<string>): Promise<boolean> {
    const began = performance.now();
    let passed = true;
    let evidence: string;
    try {
      evidence = await body();
    } catch (error) {
      passed = false;
      evidence = messageOf(error);
    }
    const check = { id, title, passed, evidence, milliseconds: Math.round((performance.now() - began) * 10) / 10 };
    this.all.push(check);
    this.shown(check);
    return passed;
  }

  get failed(): number {
    return this.all.filter(({ passed }) => !passed).length;
  }
}

/** @throws Error with both values when they differ. */
export function expectEqual(what: string, actual: unknown, expected: unknown): void {
  if (actual !== expected) {
    throw new Error(`${what}: expected ${JSON.stringify(expected)}, saw ${JSON.stringify(actual)}`);
  }
}

/** @throws Error with `what` when `condition` is false. */
export function expectThat(what: string, condition: boolean): void {
  if (!condition) throw new Error(what);
}
