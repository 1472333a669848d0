// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { Journal } from "../../../src/telemetry/journal.ts";

const pod = (uid: string, name = uid) => ({ uid, namespace: "ns", name });
let second = 0;
const now = () => new Date(Date.UTC(2026, 0, 1, 0, 0, second++));

test("decisions in order, with time and reason", () => {
  second = 0;
  const journal = new Journal({ now });
  journal.note(pod("u"), "retry", "no ztunnel");
  journal.note(pod("u"), "enrolled");
  expect(journal.of("u")).toEqual({
    uid: "u",
    pod: "ns/u",
    entries: [
      { time: "2026-01-01T00:00:00.000Z", decision: "retry", detail: "no ztunnel", count: 1 },
      { time: "2026-01-01T00:00:01.000Z", decision: "enrolled", detail: "", count: 1 },
    ],
  });
  expect(journal.of("other")).toBeUndefined();
});

test("the same in a row counts up, so that retries do not push out what came before", () => {
  second = 0;
  const journal = new Journal({ now, perPod: 3 });
  journal.note(pod("u"), "captured");
  for (let i = 0; i < 50; i++) journal.note(pod("u"), "retry", "no ztunnel");
  journal.note(pod("u"), "retry", "refused");
  const entries = journal.of("u")?.entries ?? [];
  expect(entries.map(({ decision, detail, count }) => [decision, detail, count])).toEqual([
    ["captured", "", 1],
    ["retry", "no ztunnel", 50],
    ["retry", "refused", 1],
  ]);
  expect(entries[1]?.time).toBe("2026-01-01T00:00:50.000Z");
});

test("bounded per pod, in pods and in text; the quietest pod goes first", () => {
  const journal = new Journal({ perPod: 2, pods: 3 });
  for (const decision of ["a", "b", "c"]) journal.note(pod("1"), decision);
  expect(journal.of("1")?.entries.map(({ decision }) => decision)).toEqual(["b", "c"]);
  for (const uid of ["2", "3"]) journal.note(pod(uid), "x");
  journal.note(pod("1"), "again");
  journal.note(pod("4"), "x");
  expect(journal.of("2")).toBeUndefined();
  expect(journal.all().map(({ uid }) => uid)).toEqual(["4", "1", "3"]);
  journal.note(pod("4"), "long", "x".repeat(10_000));
  expect(journal.of("4")?.entries.at(-1)?.detail.length).toBe(500);
});

test("by name: successors of one name, the latest first", () => {
  const journal = new Journal();
  journal.note(pod("old", "web-0"), "removed");
  journal.note(pod("x", "web-1"), "enrolled");
  journal.note(pod("new", "web-0"), "enrolled");
  expect(journal.named("ns/web-0").map(({ uid }) => uid)).toEqual(["new", "old"]);
});

test("what it hands out does not change it", () => {
  const journal = new Journal();
  journal.note(pod("u"), "a");
  const seen = journal.of("u");
  journal.note(pod("u"), "b");
  expect(seen?.entries).toHaveLength(1);
});
