// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from "vitest";
import { KeyedQueue } from "../../../src/agent/queue.ts";
import { systemClock } from "../../../src/core/clock.ts";

const BACKOFF = { initialMs: 5, maxMs: 20, jitter: 0 };

function makeQueue(work: (key: string) => Promise<void>, concurrency = 4) {
  const failures: string[] = [];
  const queue = new KeyedQueue({
    concurrency,
    backoff: BACKOFF,
    clock: systemClock,
    work,
    failed: (key) => failures.push(key),
  });
  return { queue, failures };
}

const tick = (ms = 0) => new Promise((resolve) => setTimeout(resolve, ms));

describe("KeyedQueue", () => {
  test("never runs one key twice at a time, and turns triggers during a pass into one further pass", async () => {
    let inside = 0;
    let passes = 0;
    const { queue } = makeQueue(async () => {
      inside += 1;
      expect(inside).toBe(1);
      passes += 1;
      await tick(5);
      inside -= 1;
    });
    queue.start();
    queue.trigger("a");
    await tick();
    for (let i = 0; i < 50; i++) queue.trigger("a");
    await tick(30);
    expect(passes).toBe(2);
  });

  test("works on at most `concurrency` keys at once, and on all of them", async () => {
    let now = 0;
    let most = 0;
    const done = new Set<string>();
    const { queue } = makeQueue(async (key) => {
      now += 1;
      most = Math.max(most, now);
      await tick(1);
      now -= 1;
      done.add(key);
    }, 3);
    queue.start();
    for (let i = 0; i < 30; i++) queue.trigger(`k${i}`);
    while (done.size < 30) await tick(1);
    expect(most).toBe(3);
    expect(queue.depth).toBe(0);
  });

  test("run waits for a pass that begins after the call", async () => {
    const order: string[] = [];
    let round = 0;
    const { queue } = makeQueue(async () => {
      const mine = ++round;
      await tick(5);
      order.push(`pass ${mine}`);
    });
    queue.start();
    queue.trigger("a");
    await tick(1);
    await queue.run("a");
    order.push("run");
    expect(order).toEqual(["pass 1", "pass 2", "run"]);
  });

  test("run goes ahead of what was triggered before", async () => {
    const order: string[] = [];
    const { queue } = makeQueue(async (key) => {
      await tick(1);
      order.push(key);
    }, 1);
    queue.trigger("a");
    queue.trigger("b");
    const urgent = queue.run("c");
    queue.start();
    await urgent;
    expect(order).toEqual(["c"]);
  });

  test("a failed pass is tried again with growing delay, and tells whoever waits", async () => {
    let attempts = 0;
    const { queue, failures } = makeQueue(async () => {
      attempts += 1;
      if (attempts < 3) throw new Error("not yet");
    });
    queue.start();
    await expect(queue.run("a")).rejects.toThrow("not yet");
    expect(queue.attempts("a")).toBe(1);
    while (attempts < 3) await tick(1);
    await tick(5);
    expect(failures).toEqual(["a", "a"]);
    expect(queue.attempts("a")).toBe(0);
  });

  test("says how long the longest wait is, and how many sleep until a retry", async () => {
    let now = 0;
    let release: () => void = () => undefined;
    const queue = new KeyedQueue({
      concurrency: 1,
      backoff: { initialMs: 60_000, maxMs: 60_000, jitter: 0 },
      clock: { ...systemClock, now: () => now },
      work: async (key) => {
        await new Promise<void>((resolve) => {
          release = resolve;
        });
        if (key === "a") throw new Error("no");
      },
      failed: () => undefined,
    });
    queue.start();
    expect([queue.oldestMs, queue.sleeping]).toEqual([0, 0]);
    for (const key of ["a", "b", "c"]) {
      queue.trigger(key);
      now += 100;
    }
    // a is being worked on; b came 200 ms ago.
    expect([queue.oldestMs, queue.sleeping]).toEqual([200, 0]);
    release();
    await tick();
    expect([queue.oldestMs, queue.sleeping]).toEqual([100, 1]);
    release();
    await tick();
    expect([queue.oldestMs, queue.sleeping]).toEqual([0, 1]);
    release();
    await queue.stop(100);
  });

  test("a trigger brings a sleeping retry forward", async () => {
    let attempts = 0;
    const queue = new KeyedQueue({
      concurrency: 1,
      backoff: { initialMs: 60_000, maxMs: 60_000, jitter: 0 },
      clock: systemClock,
      work: async () => {
        attempts += 1;
        if (attempts === 1) throw new Error("once");
      },
      failed: () => undefined,
    });
    queue.start();
    await queue.run("a").catch(() => undefined);
    queue.trigger("a");
    await tick(5);
    expect(attempts).toBe(2);
  });

  test("stop waits for passes under way, refuses new ones and rejects waiters", async () => {
    let finished = false;
    const { queue } = makeQueue(async () => {
      await tick(10);
      finished = true;
    }, 1);
    queue.start();
    queue.trigger("a");
    await tick(1);
    const waiting = queue.run("b");
    const refused = expect(waiting).rejects.toThrow("stopping");
    await queue.stop(1000);
    await refused;
    expect(finished).toBe(true);
    await expect(queue.run("c")).rejects.toThrow("is stopping");
  });

  test("a nudge neither wakes a sleeping retry nor repeats a pass that fails; after a success it is one more pass", async () => {
    let passes = 0;
    let fail = true;
    const queue = new KeyedQueue({
      concurrency: 1,
      backoff: { initialMs: 60_000, maxMs: 60_000, jitter: 0 },
      clock: systemClock,
      work: async () => {
        passes += 1;
        if (passes < 10) queue.nudge("a");
        if (fail) throw new Error("no");
      },
      failed: () => undefined,
    });
    queue.start();
    queue.trigger("a");
    await tick(10);
    queue.nudge("a");
    await tick(10);
    expect(passes).toBe(1);
    fail = false;
    queue.trigger("a");
    await tick(20);
    expect(passes).toBe(10);
  });
});
