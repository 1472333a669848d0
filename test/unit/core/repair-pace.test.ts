// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { RepairPace } from "../../../src/core/repair-pace.ts";

test("the first repair waits for nothing, each next one longer, up to 5 s; a quiet minute begins anew", () => {
  const pace = new RepairPace();
  expect(pace.delay(0)).toBe(0);
  const gaps: number[] = [];
  let now = 0;
  for (let turn = 0; turn < 8; turn++) {
    pace.begins(now);
    gaps.push(pace.delay(now));
    now += pace.delay(now);
  }
  expect(gaps).toEqual([100, 200, 400, 800, 1600, 3200, 5000, 5000]);
  expect(pace.delay(now + 60_001)).toBe(0);
  pace.begins(now + 60_001);
  expect(pace.delay(now + 60_001)).toBe(100);
});

test("counts what has succeeded: not what is under way, and not what has failed", () => {
  const pace = new RepairPace();
  pace.begins(0);
  expect(pace.count(0)).toBe(0);
  pace.repaired();
  expect(pace.count(1)).toBe(1);
  pace.begins(200);
  pace.begins(400);
  expect(pace.count(400)).toBe(1);
  pace.repaired();
  expect(pace.count(401)).toBe(2);
  expect(pace.count(60_401)).toBe(0);
  pace.begins(60_500);
  expect(pace.count(60_500)).toBe(0);
});
