// SPDX-License-Identifier: Apache-2.0

/** Returns a function that runs tasks, at most `limit` at the same time, the others in order of arrival. */
export function limiter(limit: number): <T>(task: () => Promise<T>) => Promise<T> {
  let free = limit;
  const waiting: (() => void)[] = [];
  return async (task) => {
    if (free > 0) free -= 1;
    else await new Promise<void>((resolve) => waiting.push(resolve));
    try {
      return await task();
    } finally {
      const next = waiting.shift();
      // The place passes on without ever being free: nobody may come between.
      if (next === undefined) free += 1;
      else next();
    }
  };
}
