// SPDX-License-Identifier: Apache-2.0
// Pods that upstream's istio-cni has captured become ours: with its rules in each of its forms, to each of our
// engines, under load, and no connection is lost, refused or let past ztunnel.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { NodeDataplane } from "../../../../src/dataplane/dataplane.ts";
import { native } from "../../../../src/native/load.ts";
import { specOf, startDataplane, stateOf } from "../../../support/lab-dataplane.ts";
import { ENGINES } from "../../../support/lab-engines.ts";
import { expectAlive, TrafficLab } from "../../../support/lab-traffic.ts";
import { enrolByUpstream, UPSTREAM_FORMS } from "../../../support/lab-upstream.ts";

let dataplane: NodeDataplane;
let traffic: TrafficLab;

const pod = () => traffic.lab.pod.netns;

describe.each(ENGINES)("by $name", (engine) => {
  beforeAll(async () => {
    dataplane = await startDataplane(native(), engine);
  });
  afterAll(() => dataplane.close());
  beforeEach(async () => {
    traffic = await TrafficLab.create();
  });
  afterEach(() => traffic.close());

  test.each(UPSTREAM_FORMS)("from %s", async (form) => {
    const spec = specOf(traffic.lab);
    const captured = { mode: "captured", engine: engine.engine, differences: [] };
    const before = await stateOf(pod());
    await enrolByUpstream(pod(), form);
    expect(dataplane.present(pod())).toBe(true);
    expect(dataplane.observe(pod(), spec)).toEqual({
      mode: "differs",
      engine: undefined,
      differences: ["istio-cni's rules redirect its connections"],
    });
    const old = [...(await traffic.openAll(2)), ...(await traffic.openHbone())];
    const load = traffic.load();
    await load.more(20);
    expect(await dataplane.capture(pod(), spec, true)).toBe(engine.engine);
    await load.more(40);
    await expectAlive(old);
    const young = [...(await traffic.openAll()), ...(await traffic.openHbone())];
    await traffic.succeedZtunnel();
    dataplane.listenersOpened(pod());
    await load.more(20);
    await expectAlive([...old, ...young]);

    for (const call of old) call.close();
    await expect.poll(() => dataplane.observe(pod(), spec).mode).toBe("differs");
    expect(await dataplane.capture(pod(), spec, true)).toBe(engine.engine);
    await load.more(40);
    await expectAlive(young);
    const { opened, failures } = await load.end();
    expect(failures).toEqual([]);
    expect(traffic.accepted).toBe(opened + old.length + young.length);
    // Connections that end leave nothing to do behind.
    expect(dataplane.observe(pod(), spec)).toEqual(captured);
    for (const call of young) call.close();
    await expect.poll(() => dataplane.proxiedConnections(pod())).toBe(0);
    expect(dataplane.observe(pod(), spec)).toEqual(captured);
    await dataplane.release(pod());
    expect(await stateOf(pod())).toBe(before);
  });
});
