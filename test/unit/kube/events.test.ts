// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import type { PodEvent } from "../../../src/core/ports/cluster.ts";
import { type Fault, isVerb } from "../../fakes/apiserver.ts";
import { CHART_RULES, ClusterHarness } from "./cluster-harness.ts";
import { StepClock } from "./step-clock.ts";

const FAILED: PodEvent = { type: "Warning", reason: "AmbientEnrollmentFailed", message: "no ztunnel" };

function eventsOf(h: ClusterHarness) {
  return h.server.list("Event", "shop");
}

test("an Event as kubectl describe expects it", async () => {
  await using h = await ClusterHarness.create();
  const pod = h.pod("a");
  await h.cluster.event(pod, FAILED);
  const [event, ...more] = eventsOf(h);
  expect(more).toEqual([]);
  expect(event).toMatchObject({
    involvedObject: { apiVersion: "v1", kind: "Pod", namespace: "shop", name: "a", uid: pod.uid },
    type: "Warning",
    reason: "AmbientEnrollmentFailed",
    message: "no ztunnel",
    source: { component: "ambient-cni", host: "node1" },
    reportingComponent: "ambient-cni",
    count: 1,
    firstTimestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
  });
});

test("a repetition is quiet for a minute, then counted up in the same Event with its latest words", async () => {
  const clock = new StepClock();
  await using h = await ClusterHarness.create({ clock });
  const pod = h.pod("a");
  for (let times = 0; times < 5; times++) await h.cluster.event(pod, FAILED);
  expect(h.server.requests).toHaveLength(1);
  clock.advance(60_000);
  await h.cluster.event(pod, { ...FAILED, message: "no netns" });
  expect(eventsOf(h)).toHaveLength(1);
  expect(eventsOf(h)[0]).toMatchObject({ count: 6, message: "no netns" });
});

test("another reason, another pod: Events of their own", async () => {
  await using h = await ClusterHarness.create();
  const [a, b] = [h.pod("a"), h.pod("b")];
  await h.cluster.event(a, FAILED);
  await h.cluster.event(b, FAILED);
  await h.cluster.event(a, { ...FAILED, reason: "Other" });
  expect(eventsOf(h)).toHaveLength(3);
});

test("an Event that expired is written anew, and an old series begins again", async () => {
  const clock = new StepClock();
  await using h = await ClusterHarness.create({ clock });
  const pod = h.pod("a");
  await h.cluster.event(pod, FAILED);
  for (const event of eventsOf(h)) h.server.delete("Event", "shop", event.metadata.name);
  clock.advance(60_000);
  await h.cluster.event(pod, FAILED);
  expect(eventsOf(h)).toHaveLength(1);
  clock.advance(31 * 60_000);
  await h.cluster.event(pod, FAILED);
  expect(eventsOf(h)).toHaveLength(2);
});

test("a flood is cut to thirty, then one per second", async () => {
  const clock = new StepClock();
  await using h = await ClusterHarness.create({ clock });
  const pods = Array.from({ length: 100 }, (_, index) => h.pod(`pod-${index}`));
  await Promise.all(pods.map((pod) => h.cluster.event(pod, FAILED)));
  expect(h.server.requestsOf("create")).toHaveLength(30);
  clock.advance(5_000);
  await Promise.all(pods.slice(50).map((pod) => h.cluster.event(pod, FAILED)));
  expect(h.server.requestsOf("create")).toHaveLength(35);
});

test("no right to write Events is logged once, and nothing rejects", async () => {
  await using h = await ClusterHarness.create({
    rules: CHART_RULES.filter((rule) => !rule.resources.includes("events")),
  });
  for (const name of ["a", "b", "c"]) await h.cluster.event(h.pod(name), FAILED);
  expect(h.server.requestsOf("create")).toHaveLength(3);
  expect(h.logger.lines).toHaveLength(1);
  expect(h.logger.lines[0]?.fields.remedy).toContain("events");
});

test.each<Fault>([{ kind: "status", code: 500 }, { kind: "reset" }, { kind: "bytes", bytes: "nonsense" }])(
  "a failure (%j) is logged and does not reject",
  async (fault) => {
    await using h = await ClusterHarness.create();
    h.server.fail({ when: isVerb("create"), fault });
    await h.cluster.event(h.pod("a"), FAILED);
    expect(h.logger.lines.map(({ message }) => message)).toEqual(["an Event was not written"]);
  },
);

test("in a namespace that is gone, with a pod name that is none: logged", async () => {
  await using h = await ClusterHarness.create();
  await h.cluster.event({ uid: "u", namespace: "gone", name: "a" }, FAILED);
  await h.cluster.event({ uid: "v", namespace: "..", name: "a" }, FAILED);
  expect(h.logger.lines).toHaveLength(2);
});

test("a long message is cut at 1024 bytes between two characters, a long pod name fits", async () => {
  await using h = await ClusterHarness.create();
  const pod = h.pod("p".repeat(253));
  await h.cluster.event(pod, { ...FAILED, message: "ü€".repeat(400) });
  const message = String(eventsOf(h)[0]?.message);
  expect(Buffer.byteLength(message)).toBeLessThanOrEqual(1024);
  expect(message).toMatch(/^(ü€)+ü?\.\.\.$/);
});
