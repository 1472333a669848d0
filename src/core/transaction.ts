// SPDX-License-Identifier: Apache-2.0
import { messageOf } from "./errors.ts";

/** One change of the outside world and its inverse. `undo` must work after a half-done `apply`. */
export interface Step {
  /** Verb phrase: it prefixes the error when the step fails. */
  readonly name: string;
  apply(): Promise<void> | void;
  undo(): Promise<void> | void;
}

export interface StepTiming {
  readonly name: string;
  readonly milliseconds: number;
}

/**
 * Applies steps in order. When one fails, it and those before it are undone in reverse order, and the
 * failure is thrown again; failures of an undo go to `undoFailed` and stop nothing.
 */
export async function runSteps(
  steps: readonly Step[],
  undoFailed: (step: string, reason: string) => void,
  now: () => number = () => performance.now(),
): Promise<readonly StepTiming[]> {
  const timings: StepTiming[] = [];
  for (const [index, step] of steps.entries()) {
    const began = now();
    try {
      await step.apply();
    } catch (error) {
      for (const done of steps.slice(0, index + 1).reverse()) {
        try {
          await done.undo();
        } catch (undoError) {
          undoFailed(done.name, messageOf(undoError));
        }
      }
      throw error;
    }
    timings.push({ name: step.name, milliseconds: now() - began });
  }
  return timings;
}
