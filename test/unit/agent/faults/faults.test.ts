// SPDX-License-Identifier: Apache-2.0
// Every single thing that an agent asks of kernel, cluster and ztunnel fails once, or is the last one of its life.
import { afterAll, describe, expect, test } from "vitest";
import { ScratchDir } from "../../../support/scratch-dir.ts";
import { COURSES, type Course, CROSSINGS } from "./courses.ts";
import { FaultNode, type NodePod } from "./fault-node.ts";
import type { FaultKind } from "./fault-point.ts";
import { SWEEP_MS } from "./life.ts";

const KINDS = ["refused", "lost", "late", "killed before", "killed after"] as const satisfies readonly FaultKind[];
const SETTLE_MS = 80_000;
/** Of what is down, and of what crosses it. */
const DOWN_MS = 45_000;
const CROSSED_AFTER_MS = 1000;

const dir = new ScratchDir();
afterAll(() => dir[Symbol.dispose]());

type Crossing = (node: FaultNode) => Promise<void> | void;

/** The fault after so many calls. Returns what it met, and what is wrong in the end. */
async function runWith(course: Course, kind: FaultKind, calls: number, crossing: Crossing = () => undefined) {
  // What crosses is heard of while the call that it crosses is under way.
  const slow = kind === "crossed" || kind === "down";
  const lag = course.lag ?? (slow ? 2 : 20);
  const pace = { lag: () => lag, delay: () => (slow ? 5 : 0) };
  const node = new FaultNode({
    socketDir: dir.path,
    ...pace,
    ...(course.config === undefined ? {} : { config: course.config }),
  });
  node.run("calm", { namespace: "calm" });
  const pod = course.given(node);
  await node.boot();
  expect(node.disagreements(true)).toEqual([]);
  let busy = 0;
  const during = (what: () => Promise<void> | void) => {
    busy += 1;
    (async () => {
      await what();
      busy -= 1;
    })().catch((error: unknown) => node.trouble(`the course fails: ${String(error)}`));
  };
  node.point.arm(kind, calls, () => {
    if (kind === "crossed") return during(() => crossing(node));
    node.clock.after(CROSSED_AFTER_MS, () => during(() => crossing(node)));
    node.clock.after(DOWN_MS, () => node.point.disarm());
  });
  during(() => course.change(node, pod as NodePod));
  during(() => node.startPlain());
  await node.clock.pass(SETTLE_MS);
  node.point.disarm();
  if (busy > 0) node.trouble("the course does not end");
  // Where watching fails, nothing but a sweep comes by again.
  const wrong = new Set(node.point.met === "dataplane.watch" ? [] : node.disagreements(false));
  await node.clock.pass(SWEEP_MS + SETTLE_MS);
  for (const one of node.disagreements(true)) wrong.add(one);
  node.life.end();
  return { met: node.point.met, wrong: [...wrong] };
}

async function runEverywhere(course: Course, kind: FaultKind, crossing?: Crossing): Promise<void> {
  const wrong: string[] = [];
  let calls = 0;
  for (; ; calls++) {
    const result = await runWith(course, kind, calls, crossing);
    if (result.wrong.length > 0) wrong.push(`${calls}, ${result.met ?? "nothing"}: ${result.wrong.join("; ")}`);
    if (result.met === undefined) break;
  }
  expect(wrong).toEqual([]);
  if (kind === "refused") expect(calls).toBeGreaterThan(0);
}

describe.each(KINDS)("%s", (kind) => {
  test.each(Object.entries(COURSES))("%s", (_name, course) => runEverywhere(course, kind));
});

/** Where two things meet: these, or all with AMBIENT_CNI_TROUBLE. */
const all = process.env.AMBIENT_CNI_TROUBLE !== undefined;
const MET = ["its label goes", "it is deleted", "its rules are taken away", "ztunnel connects again"];
const UNDER_WAY = [
  "a pod starts",
  "a running pod is labelled",
  "a pod loses its label while connections are open",
  "an agent follows another",
];
const crossings = Object.entries(CROSSINGS).filter(([name]) => all || MET.includes(name));
const courses = Object.entries(COURSES).filter(([name]) => all || UNDER_WAY.includes(name));

describe.each(["crossed", "down"] as const)("%s", (kind) => {
  describe.each(crossings)("while %s", (_crossing, crossing) => {
    test.each(courses)("%s", (_name, course) => runEverywhere(course, kind, crossing));
  });
});
