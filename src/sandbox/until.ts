// SPDX-License-Identifier: Apache-2.0

/**
 * Polls until `condition` holds; for failures alone is there a deadline, so it is long enough for a busy machine.
 * @throws Error that names what did not happen within `ms`.
 */
export async function until(what: string, condition: () => boolean | Promise<boolean>, ms = 60_000): Promise<void> {
  const deadline = Date.now() + ms;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`did not happen within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
