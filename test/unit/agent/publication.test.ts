// SPDX-License-Identifier: Apache-2.0
import { beforeEach, expect, test } from "vitest";
import { Publication } from "../../../src/agent/publication.ts";
import type { Clock } from "../../../src/core/clock.ts";
import { eventually, FakeParts } from "../../fakes/parts.ts";

const AMBIENT = { "istio.io/dataplane-mode": "ambient" };

/** Each write waits until it is let through, as on a busy disk. */
class SlowParts extends FakeParts {
  readonly begun: (() => void)[] = [];
  /** Timers that are set. */
  readonly due = new Set<() => void>();
  override readonly clock: Clock = {
    now: () => 0,
    after: (_ms, task) => {
      this.due.add(task);
      return () => this.due.delete(task);
    },
  };
  override async publish(clear: readonly string[]): Promise<void> {
    await new Promise<void>((resolve) => this.begun.push(resolve));
    this.published.push(clear);
  }
}

let parts: SlowParts;
let publication: Publication;

beforeEach(() => {
  parts = new SlowParts();
  parts.cluster.putNamespace("plain", {});
  publication = new Publication(parts);
});

test("a slow write of what was true before is over before the next begins, so the newest stays", async () => {
  const first = publication.write();
  parts.cluster.putNamespace("plain", AMBIENT);
  const others = [publication.write(), publication.write(true), publication.write()];
  expect(parts.begun).toHaveLength(1);
  parts.begun[0]?.();
  await eventually("the second begins", () => parts.begun.length === 2);
  expect(parts.published).toEqual([["plain"]]);
  parts.begun[1]?.();
  await Promise.all([first, ...others]);
  // All that was asked for meanwhile is in one write, which one of them wanted anyway.
  expect(parts.published).toEqual([["plain"], []]);
});

test("whenever it is asked for, what is asked for is written", async () => {
  for (let turns = 0; turns < 12; turns++) {
    const quick = new FakeParts();
    quick.cluster.putNamespace("plain", {});
    const one = new Publication(quick);
    void one.write();
    // At any moment of the first write's end.
    for (let turn = 0; turn < turns; turn++) await null;
    quick.cluster.putNamespace("plain", AMBIENT);
    await one.write();
    expect(quick.published.at(-1)).toEqual([]);
  }
});

test("after the end nothing is written any more, by whatever was due or is asked for", async () => {
  void publication.write();
  publication.touch();
  expect(parts.due.size).toBe(1);
  void publication.write(true);
  let ended = false;
  const end = publication.stop(false).then(() => {
    ended = true;
  });
  await new Promise((resolve) => setImmediate(resolve));
  expect(ended).toBe(false);
  parts.begun[0]?.();
  await end;
  publication.touch();
  await publication.write(true);
  expect(parts.due.size).toBe(0);
  expect(parts.begun).toHaveLength(1);
});

test("the last write of an agent that is followed by another is the newest", async () => {
  void publication.write();
  parts.cluster.putNamespace("plain", AMBIENT);
  const end = publication.stop(true);
  parts.begun[0]?.();
  await eventually("the last begins", () => parts.begun.length === 2);
  parts.begun[1]?.();
  await end;
  expect(parts.published).toEqual([["plain"], []]);
});
