// SPDX-License-Identifier: Apache-2.0
import { codeOf, messageOf } from "../../core/errors.ts";

/** One thing that was done, or would be. */
export interface TakenStep {
  /** `removed`, `released`, ...; with a dry run `would remove`. */
  readonly did: string;
  readonly what: string;
  /** Why it failed. */
  readonly problem: string | null;
}

/** [infinitive, past] */
export type Verb = readonly [infinitive: string, past: string];

const DENIED = new Set(["EPERM", "EACCES", "NOT_PERMITTED"]);

/** Takes steps one by one and tells of each. A step that fails stops nothing. */
export class Steps {
  readonly taken: TakenStep[] = [];
  denied = false;

  constructor(
    readonly dryRun: boolean,
    private readonly told: (step: TakenStep) => void,
  ) {}

  /** Whether it was done; with a dry run `act` is not called. */
  async take([infinitive, past]: Verb, what: string, act: () => Promise<void> | void): Promise<boolean> {
    if (this.dryRun) return this.tell({ did: `would ${infinitive}`, what, problem: null });
    try {
      await act();
      return this.tell({ did: past, what, problem: null });
    } catch (error) {
      this.denied ||= DENIED.has(codeOf(error));
      return this.tell({ did: `could not ${infinitive}`, what, problem: messageOf(error) });
    }
  }

  get failed(): boolean {
    return this.taken.some(({ problem }) => problem !== null);
  }

  private tell(step: TakenStep): boolean {
    this.taken.push(step);
    this.told(step);
    return step.problem === null;
  }
}
