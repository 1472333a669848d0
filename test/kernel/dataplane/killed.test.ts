// SPDX-License-Identifier: Apache-2.0
// An agent is killed between any two of its writes to a pod; its successor, which remembers nothing,
// must leave the pod as it was before the mesh.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { NodeDataplane } from "../../../src/dataplane/dataplane.ts";
import type { NativeBinding } from "../../../src/native/binding.ts";
import { native } from "../../../src/native/load.ts";
import { specOf, startDataplane, stateOf } from "../../support/lab-dataplane.ts";
import { ENGINES } from "../../support/lab-engines.ts";
import { NetnsLab } from "../../support/netns-lab.ts";

/** Writes until the kill: from then on every write fails, so nothing is undone either. */
let left = Number.POSITIVE_INFINITY;

function mortal<Arguments extends unknown[], Result>(
  write: (...given: Arguments) => Result,
): (...given: Arguments) => Result {
  return (...given) => {
    if (left === 0) throw new Error("killed");
    left -= 1;
    return write(...given);
  };
}

const dying: NativeBinding = {
  ...native(),
  sysctlSet: mortal(native().sysctlSet),
  ruleAdd: mortal(native().ruleAdd),
  ruleDelete: mortal(native().ruleDelete),
  routeReplace: mortal(native().routeReplace),
  routeDelete: mortal(native().routeDelete),
};

let agent: NodeDataplane;
let successor: NodeDataplane;
let lab: NetnsLab;
let before: string;

describe.each(ENGINES)("$name", (engine) => {
  beforeAll(async () => {
    agent = await startDataplane(dying, engine);
    successor = await startDataplane(native(), engine);
  });
  afterAll(() => {
    agent.close();
    successor.close();
  });
  beforeEach(async () => {
    lab = NetnsLab.create();
    before = await stateOf(lab.pod.netns);
  });
  afterEach(() => {
    left = Number.POSITIVE_INFINITY;
    lab.close();
  });

  /** Rule and route of two families, five sysctls; early demux where connections are translated. */
  const WRITES = engine.engine === "ebpf" ? 9 : 10;
  const kills = Array.from({ length: WRITES }, (_, writes) => writes);

  describe.each(kills)("killed after %i writes", (writes) => {
    test("of prepare, then released", async () => {
      left = writes;
      await agent.prepare(lab.pod.netns, specOf(lab)).catch(() => undefined);
      expect(left).toBe(0);
      expect(successor.present(lab.pod.netns)).toBe(writes > 0);
      await successor.release(lab.pod.netns);
      expect(await stateOf(lab.pod.netns)).toBe(before);
    });

    test("of prepare, then captured by the successor, which is restarted, and released", async () => {
      left = writes;
      await agent.prepare(lab.pod.netns, specOf(lab)).catch(() => undefined);
      await successor.capture(lab.pod.netns, specOf(lab));
      const next = await startDataplane(native(), engine);
      await next.release(lab.pod.netns);
      next.close();
      expect(await stateOf(lab.pod.netns)).toBe(before);
    });

    test("of release, then released", async () => {
      await agent.capture(lab.pod.netns, specOf(lab));
      left = writes;
      await agent.release(lab.pod.netns).catch(() => undefined);
      expect(left).toBe(0);
      expect(successor.present(lab.pod.netns)).toBe(true);
      await successor.release(lab.pod.netns);
      expect(await stateOf(lab.pod.netns)).toBe(before);
      expect(successor.present(lab.pod.netns)).toBe(false);
    });
  });

  test("there are no more writes than these", async () => {
    left = WRITES;
    await agent.prepare(lab.pod.netns, specOf(lab));
    expect(left).toBe(0);
    left = WRITES;
    await agent.release(lab.pod.netns);
    expect(left).toBe(0);
    expect(await stateOf(lab.pod.netns)).toBe(before);
  });
});
