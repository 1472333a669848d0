// SPDX-License-Identifier: Apache-2.0
// The reflector contract, clause by clause, over real sockets.
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { ApiFailure } from "../../../src/sandbox/apiserver/failure.ts";
import { type Fault, isList, isWatch } from "../../fakes/apiserver.ts";
import { ReflectorHarness } from "./reflector-harness.ts";
import { until } from "./until.ts";

const RELISTS = "ambient_cni_kube_relists_total";
const EVENTS = "ambient_cni_kube_watch_events_total";

test("the first list asks any replica, page by page of 500, for this node's pods only", async () => {
  await using h = await ReflectorHarness.create();
  for (let index = 0; index < 1_100; index++) h.pod(`pod-${String(index).padStart(4, "0")}`);
  h.pod("elsewhere", { nodeName: "node2" });
  await h.run();
  expect(h.store.size).toBe(1_100);
  expect(h.store.named("shop/elsewhere")).toBeUndefined();
  const queries = h.server.requestsOf("list").map(({ query }) => Object.fromEntries(query));
  expect(queries).toHaveLength(3);
  expect(queries[0]).toEqual({ limit: "500", resourceVersion: "0", fieldSelector: "spec.nodeName=node1" });
  for (const query of queries.slice(1)) {
    expect(query).toEqual({ limit: "500", continue: expect.any(String), fieldSelector: "spec.nodeName=node1" });
  }
});

test.each([
  [0, "261"],
  [0.5, "290"],
  [1, "319"],
])("a watch asks for bookmarks and an end after 290 s ± 10 % (random %d)", async (random, seconds) => {
  await using h = await ReflectorHarness.create();
  h.random = random;
  await h.run();
  const [watch] = h.server.requestsOf("watch");
  expect(Object.fromEntries(watch?.query ?? [])).toEqual({
    watch: "1",
    allowWatchBookmarks: "true",
    timeoutSeconds: seconds,
    fieldSelector: "spec.nodeName=node1",
    resourceVersion: h.server.resourceVersion,
  });
});

test("events and bookmarks both advance the version that the next watch begins at", async () => {
  await using h = await ReflectorHarness.create();
  await h.run();
  h.pod("a");
  await h.holds("a");
  expect(h.reflector.resourceVersion).toBe(h.server.resourceVersion);
  // Changes of other nodes move the server on; only a bookmark tells.
  h.pod("elsewhere", { nodeName: "node2" });
  expect(h.reflector.resourceVersion).not.toBe(h.server.resourceVersion);
  h.server.bookmark();
  await until(() => h.reflector.resourceVersion === h.server.resourceVersion, "the bookmark changed nothing");
  h.server.endWatches();
  h.clock.advance(await h.clock.sleeping());
  await h.watching();
  expect(h.server.requestsOf("watch").at(-1)?.query.get("resourceVersion")).toBe(h.server.resourceVersion);
  expect(h.server.requestsOf("list")).toHaveLength(1);
  expect(h.counted(EVENTS, { resource: "pods", type: "bookmark" })).toBe(1);
  expect(h.counted(EVENTS, { resource: "pods", type: "added" })).toBe(1);
});

test("without bookmarks the watch still goes on, from the last event", async () => {
  await using h = await ReflectorHarness.create();
  h.server.dropBookmarks = true;
  await h.run();
  h.pod("a");
  await h.holds("a");
  h.server.bookmark();
  h.server.endWatches();
  h.clock.advance(await h.clock.sleeping());
  await h.watching();
  h.pod("b");
  await h.holds("a", "b");
  expect(h.server.requestsOf("list")).toHaveLength(1);
});

test.each<[string, Fault]>([
  ["as an event", { kind: "errorEvent", code: 410 }],
  ["as the status", { kind: "status", code: 410 }],
])("410 %s: a new list, consistent and after a pause; what vanished meanwhile is told", async (_how, fault) => {
  await using h = await ReflectorHarness.create();
  const uid = h.pod("gone");
  h.pod("stays");
  await h.run();
  h.server.fail({ when: isWatch, fault, times: 1 });
  h.server.endWatches();
  h.clock.advance(await h.clock.sleeping());
  const wait = await h.clock.sleeping();
  expect(wait).toBe(1_600);
  h.remove("gone");
  expect(h.server.requestsOf("list")).toHaveLength(1);
  h.clock.advance(wait);
  await h.holds("stays");
  expect(h.told.at(-1)).toBe(`-gone:${uid}`);
  const relist = h.server.requestsOf("list").at(-1);
  expect(relist?.query.has("resourceVersion")).toBe(false);
  expect(relist?.query.get("limit")).toBe("500");
  expect(h.counted(RELISTS, { resource: "pods", reason: "expired" })).toBe(1);
});

test("history compacted on the server while the watch was away", async () => {
  await using h = await ReflectorHarness.create();
  h.pod("a");
  await h.run();
  h.server.fail({ when: isWatch, fault: { kind: "close" }, times: 1 });
  h.server.endWatches();
  h.clock.advance(await h.clock.sleeping());
  await h.clock.sleeping();
  h.pod("b");
  h.server.compact();
  // The watch at the old version is refused, then the list comes.
  h.clock.advance(await h.clock.sleeping());
  await until(() => h.server.requestsOf("watch").length === 3, "no third watch");
  h.clock.advance(await h.clock.sleeping());
  await h.holds("a", "b");
  expect(h.counted(RELISTS, { resource: "pods", reason: "expired" })).toBe(1);
});

test("a pod made again under its name while away is a delete and an upsert of another uid", async () => {
  await using h = await ReflectorHarness.create();
  const first = h.pod("web-0");
  await h.run();
  h.server.fail({ when: isWatch, fault: { kind: "status", code: 410 }, times: 1 });
  h.server.endWatches();
  await h.clock.sleeping();
  h.remove("web-0");
  const second = h.pod("web-0");
  h.clock.advance(await h.clock.sleeping());
  await until(() => h.server.requestsOf("watch").length === 2, "no second watch");
  h.clock.advance(await h.clock.sleeping());
  await until(() => h.told.length === 3, `told: ${h.told.join()}`);
  expect(h.told).toEqual([`+web-0:${first}`, `-web-0:${first}`, `+web-0:${second}`]);
  expect(h.store.named("shop/web-0")?.uid).toBe(second);
  expect(h.store.get(first)).toBeUndefined();
});

test("a list that changed nothing tells nothing", async () => {
  await using h = await ReflectorHarness.create();
  h.pod("a");
  await h.run();
  h.told.length = 0;
  h.server.failWatches(new ApiFailure(410, "too old"));
  h.clock.advance(await h.clock.sleeping());
  await h.watching();
  expect(h.server.requestsOf("list")).toHaveLength(2);
  expect(h.told).toEqual([]);
});

test("a watch that is closed at once: one try per backoff, 0.8 s doubled up to 30 s", async () => {
  await using h = await ReflectorHarness.create();
  h.server.fail({ when: isWatch, fault: { kind: "close" } });
  h.reflector.start();
  const waits: number[] = [];
  for (let attempt = 0; attempt < 8; attempt++) {
    waits.push(await h.clock.sleeping());
    expect(h.server.requestsOf("watch")).toHaveLength(attempt + 1);
    h.clock.advance(waits.at(-1) ?? 0);
    await until(() => h.server.requestsOf("watch").length === attempt + 2, "no next watch");
  }
  expect(waits).toEqual([800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
  expect(h.server.requestsOf("list")).toHaveLength(1);
});

test("a list of nothing may be null", async () => {
  await using h = await ReflectorHarness.create();
  const list = { kind: "PodList", metadata: { resourceVersion: h.server.resourceVersion }, items: null };
  h.server.fail({ when: isList, fault: { kind: "bytes", bytes: JSON.stringify(list) }, times: 1 });
  await h.run();
  expect(h.store.size).toBe(0);
});

test.each<[string, Fault]>([
  ["in the stream", { kind: "errorEvent", code: 500, message: "unable to decode an event" }],
  ["instead of one", { kind: "status", code: 500 }],
])(
  "a server's error %s, again and again from the same version: the third time everything is listed anew",
  async (_where, fault) => {
    await using h = await ReflectorHarness.create();
    h.pod("a");
    await h.run();
    await h.holds("a");
    h.server.fail({ when: isWatch, fault, times: 3 });
    h.server.endWatches();
    h.clock.advance(await h.clock.sleeping());
    h.remove("a");
    h.pod("b");
    for (let attempt = 0; attempt < 3; attempt++) {
      await until(() => h.server.requestsOf("watch").length === attempt + 2, "no next watch");
      const wait = await h.clock.sleeping();
      expect(h.server.requestsOf("list")).toHaveLength(1);
      h.clock.advance(wait);
    }
    await h.watching();
    await h.holds("b");
    expect(h.counted(RELISTS, { resource: "pods", reason: "fruitless" })).toBe(1);
  },
);

test("no storm while nobody moves the clock: a second of real time is one watch", async () => {
  await using h = await ReflectorHarness.create();
  h.server.fail({ when: isWatch, fault: { kind: "errorEvent", code: 410 } });
  h.reflector.start();
  await h.clock.sleeping();
  await sleep(1_000);
  expect(h.server.requestsOf("watch")).toHaveLength(1);
  expect(h.server.requestsOf("list")).toHaveLength(1);
});

test.each([
  [0, 640],
  [1, 960],
])("the backoff has 20 % jitter (random %d)", async (random, expected) => {
  await using h = await ReflectorHarness.create();
  h.random = random;
  h.server.fail({ when: isWatch, fault: { kind: "close" } });
  h.reflector.start();
  expect(await h.clock.sleeping()).toBeCloseTo(expected, 6);
});

test("a watch that lived for 60 s and ended cleanly is followed by another at once", async () => {
  await using h = await ReflectorHarness.create();
  h.server.fail({ when: isWatch, fault: { kind: "close" }, times: 3 });
  h.reflector.start();
  for (let attempt = 0; attempt < 3; attempt++) {
    h.clock.advance(await h.clock.sleeping());
    await until(() => h.server.requestsOf("watch").length === attempt + 2, "no next watch");
  }
  await h.watching();
  h.clock.advance(60_000);
  h.server.endWatches();
  await until(() => h.server.requestsOf("watch").length === 5, "no watch at once");
  expect(h.clock.asleep).toBe(false);
  // And the backoff begins anew.
  await h.watching();
  h.server.endWatches();
  expect(await h.clock.sleeping()).toBe(800);
});

test("a watch that broke after 60 s waits the first backoff only", async () => {
  await using h = await ReflectorHarness.create();
  h.server.fail({ when: isWatch, fault: { kind: "resetBody" }, times: 3 });
  h.reflector.start();
  for (let attempt = 0; attempt < 3; attempt++) {
    h.clock.advance(await h.clock.sleeping());
    await until(() => h.server.requestsOf("watch").length === attempt + 2, "no next watch");
  }
  await h.watching();
  h.clock.advance(61_000);
  h.server.failWatches(new ApiFailure(500, "etcd is gone"));
  expect(await h.clock.sleeping()).toBe(800);
});

test("behind a balancer that cuts after 50 s the time lived counts as waited", async () => {
  await using h = await ReflectorHarness.create();
  await h.run();
  for (let cut = 0; cut < 8; cut++) {
    h.clock.advance(50_000);
    h.server.endWatches();
    expect(await h.clock.sleeping()).toBe(800);
    h.clock.advance(800);
    await until(() => h.server.requestsOf("watch").length === cut + 2, "no next watch");
    await h.watching();
  }
});

test.each<[string, Fault, number]>([
  ["an internal error", { kind: "status", code: 500 }, 800],
  ["a refusal", { kind: "status", code: 403 }, 800],
  ["an unknown token", { kind: "status", code: 401 }, 800],
  ["throttling, which names a time", { kind: "status", code: 429, retryAfter: 7 }, 7_000],
  ["a reset connection", { kind: "reset" }, 800],
  ["a reset in the body", { kind: "resetBody" }, 800],
  ["an answer that is no JSON", { kind: "bytes", bytes: "<html>login</html>" }, 800],
  ["an answer that is no list", { kind: "bytes", bytes: '{"kind":"Status"}' }, 800],
])("the list fails by %s: tried again until it comes", async (_what, fault, first) => {
  await using h = await ReflectorHarness.create();
  h.pod("a");
  h.server.fail({ when: isList, fault, times: 3 });
  h.reflector.start();
  const waits: number[] = [];
  for (let attempt = 0; attempt < 3; attempt++) {
    waits.push(await h.clock.sleeping());
    expect(h.reflector.isSynced).toBe(false);
    h.clock.advance(waits.at(-1) ?? 0);
    await until(() => h.server.requestsOf("list").length === attempt + 2, "no next list");
  }
  await h.reflector.synced;
  expect(h.names).toEqual(["a"]);
  expect(waits).toEqual([first, Math.max(first, 1_600), Math.max(first, 3_200)]);
});

test.each<[string, Fault]>([
  ["a reset connection", { kind: "resetBody" }],
  ["an internal error", { kind: "status", code: 500 }],
  ["an error event", { kind: "errorEvent", code: 500 }],
  ["an event that was cut", { kind: "bytes", bytes: '{"type":"ADDED","obj' }],
])("the watch fails by %s: it goes on where it stopped, nothing is missed", async (_what, fault) => {
  await using h = await ReflectorHarness.create();
  h.pod("a");
  await h.run();
  h.server.fail({ when: isWatch, fault, times: 1 });
  h.server.endWatches();
  h.clock.advance(await h.clock.sleeping());
  await until(() => h.server.requestsOf("watch").length === 2, "no second watch");
  h.remove("a");
  h.pod("b");
  h.clock.advance(await h.clock.sleeping());
  await h.holds("b");
  expect(h.server.requestsOf("list")).toHaveLength(1);
});

test.each<[string, Fault, string]>([
  ["a line that is no JSON", { kind: "bytes", bytes: "nonsense\n" }, "malformed"],
  ["an event without a version", { kind: "bytes", bytes: '{"type":"ADDED","object":{}}\n' }, "malformed"],
  ["a line without end", { kind: "bytes", bytes: Buffer.alloc(8 * 1024 * 1024 + 2, 0x20) }, "malformed"],
  ["a refusal of the request", { kind: "status", code: 400 }, "rejected"],
  [
    "a version of the future",
    { kind: "status", code: 504, message: "Too large resource version: 9" },
    "version_too_large",
  ],
])("the watch brings %s: the same would come again, so all is listed", async (_what, fault, reason) => {
  await using h = await ReflectorHarness.create();
  h.pod("a");
  await h.run();
  h.server.fail({ when: isWatch, fault, times: 1 });
  h.server.endWatches();
  h.clock.advance(await h.clock.sleeping());
  await until(() => h.server.requestsOf("watch").length === 2, "no second watch");
  h.clock.advance(await h.clock.sleeping());
  await h.watching();
  expect(h.server.requestsOf("list")).toHaveLength(2);
  expect(h.counted(RELISTS, { resource: "pods", reason })).toBe(1);
  h.pod("b");
  await h.holds("a", "b");
});

test("a half-open watch is given up after three bookmark periods of silence, not before", async () => {
  await using h = await ReflectorHarness.create();
  await h.run();
  h.clock.advance(170_000);
  h.server.bookmark();
  await until(() => h.counted(EVENTS, { resource: "pods", type: "bookmark" }) === 1, "no bookmark");
  h.clock.advance(10_000);
  h.clock.advance(160_000);
  expect(h.server.openWatches).toBe(1);
  expect(h.clock.asleep).toBe(false);
  h.clock.advance(10_000);
  expect(await h.clock.sleeping()).toBe(800);
  await until(() => h.server.openWatches === 0, "the connection stayed open");
  expect(h.logger.lines.at(-1)?.fields.error).toContain("nothing was read for 180 s");
  h.clock.advance(800);
  await h.watching();
});

test("a watch that answers its headers and nothing else is given up too", async () => {
  await using h = await ReflectorHarness.create();
  h.server.fail({ when: isWatch, fault: { kind: "silence" }, times: 1 });
  h.reflector.start();
  await until(() => h.reflector.watchAgeSeconds !== undefined, "no watch");
  h.clock.advance(180_000);
  h.clock.advance(await h.clock.sleeping());
  await h.watching();
});

test.each([1, 2, 3, 7, 100])("events in pieces of %d bytes arrive whole", async (size) => {
  await using h = await ReflectorHarness.create();
  h.server.pieceSize = size;
  await h.run();
  const annotations = { "istio.io/reroute-virtual-interfaces": "grüße €20 😀" };
  h.pod("a", { annotations });
  h.pod("b", { annotations });
  await h.holds("a", "b");
  for (const pod of h.store.values()) expect(pod.annotations).toEqual(annotations);
});

test("a snapshot forgotten between two pages: the next list is in one piece", async () => {
  await using h = await ReflectorHarness.create();
  for (let index = 0; index < 600; index++) h.pod(`pod-${index}`);
  h.server.fail({
    when: (request) => isList(request) && request.query.has("continue"),
    fault: { kind: "status", code: 410 },
    times: 1,
  });
  h.reflector.start();
  h.clock.advance(await h.clock.sleeping());
  await h.reflector.synced;
  expect(h.store.size).toBe(600);
  const last = h.server.requestsOf("list").at(-1)?.query;
  expect(last?.has("limit")).toBe(false);
  expect(last?.has("resourceVersion")).toBe(false);
});

test("a listener that throws is logged; the others and the watch go on", async () => {
  await using h = await ReflectorHarness.create();
  h.store.listen(() => {
    throw new Error("listener broke");
  });
  const heard: string[] = [];
  h.store.listen(({ item }) => heard.push(item.name));
  h.pod("a");
  await h.run();
  h.pod("b");
  await h.holds("a", "b");
  expect(heard).toEqual(["a", "b"]);
  const lines = h.logger.lines.filter((line) => line.message === "a listener failed");
  expect(lines).toHaveLength(2);
  expect(lines[0]?.fields).toEqual({ change: "upsert", object: "shop/a", error: "listener broke" });
});

test("an object that can't be read is reported and passed over, and the version moves on", async () => {
  await using h = await ReflectorHarness.create();
  await h.run();
  const event = { type: "ADDED", object: { metadata: { name: "broken", resourceVersion: "77" } } };
  h.server.fail({ when: isWatch, fault: { kind: "bytes", bytes: `${JSON.stringify(event)}\n` }, times: 1 });
  h.server.endWatches();
  h.clock.advance(await h.clock.sleeping());
  await until(() => h.reflector.resourceVersion === "77", "the version did not move");
  expect(h.names).toEqual([]);
  expect(h.logger.lines.some((line) => line.message.includes("without uid"))).toBe(true);
});

test("stop during a list: the call is broken off, nothing follows", async () => {
  await using h = await ReflectorHarness.create();
  h.server.fail({ when: isList, fault: { kind: "hang" } });
  h.reflector.start();
  await until(() => h.server.requests.length === 1, "no list");
  await h.reflector.stop();
  await expect(h.reflector.synced).rejects.toMatchObject({ code: "KUBE_STOPPED" });
  await sleep(50);
  expect(h.server.requests).toHaveLength(1);
});

test("stop during a pause: nothing follows", async () => {
  await using h = await ReflectorHarness.create();
  h.server.fail({ when: isWatch, fault: { kind: "close" } });
  h.reflector.start();
  await h.clock.sleeping();
  await h.reflector.stop();
  expect(h.clock.asleep).toBe(false);
  h.clock.advance(60_000);
  await sleep(50);
  expect(h.server.requestsOf("watch")).toHaveLength(1);
});

test("stop during a watch resolves when its socket is closed, and logs no failure", async () => {
  await using h = await ReflectorHarness.create();
  await h.run();
  await h.reflector.stop();
  expect(h.reflector.watchAgeSeconds).toBeUndefined();
  await until(() => h.server.openWatches === 0, "the server still has a watch");
  expect(h.logger.lines.filter((line) => line.level !== "debug")).toEqual([]);
});
