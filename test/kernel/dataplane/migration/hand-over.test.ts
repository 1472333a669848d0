// SPDX-License-Identifier: Apache-2.0
// Captured pods become upstream's: from each of our engines, to its rules in each of its forms, under load. No
// connection is lost, refused or let past ztunnel, and its agent finds what it would have written itself.
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import { specOf } from "../../../support/lab-dataplane.ts";
import { ENGINES } from "../../../support/lab-engines.ts";
import { LabGivers } from "../../../support/lab-giver.ts";
import { expectAlive, TrafficLab } from "../../../support/lab-traffic.ts";
import { rulesOfUpstream, UPSTREAM_FORMS, unenrolByUpstream, upstreamRulesIn } from "../../../support/lab-upstream.ts";

const givers = new LabGivers();
let traffic: TrafficLab;

const pod = () => traffic.lab.pod.netns;

afterAll(() => givers.close());
beforeEach(async () => {
  traffic = await TrafficLab.create();
});
afterEach(() => traffic.close());

describe.each(ENGINES)("from $name", (engine) => {
  describe.each(UPSTREAM_FORMS)("to %s", (form) => {
    test("with connections of all ages", async () => {
      const spec = specOf(traffic.lab);
      const dataplane = await givers.of(engine, form);
      // Older than capture, and silent since: nothing knows them.
      const older = await traffic.openAll(2);
      expect(await dataplane.capture(pod(), spec)).toBe(engine.engine);
      const old = [...(await traffic.openAll(2)), ...(await traffic.openHbone())];
      const load = traffic.load();
      await load.more(20);
      await dataplane.handOver(pod(), spec);
      await load.more(40);
      await expectAlive([...older, ...old]);
      const young = [...(await traffic.openAll()), ...(await traffic.openHbone())];
      await traffic.succeedZtunnel();
      await load.more(20);
      const { opened, failures } = await load.end();
      expect(failures).toEqual([]);
      expect(traffic.accepted).toBe(opened + old.length + young.length);
      await expectAlive([...older, ...old, ...young]);

      const shield = /^.*(AMBIENT_CNI_SHIELD|ambient-cni-shield).*\n/gm;
      expect((await upstreamRulesIn(pod())).replaceAll(shield, "")).toBe(await rulesOfUpstream(form));
      for (const call of [...old, ...young]) call.close();
      await expect.poll(() => dataplane.proxiedConnections(pod())).toBe(0);
      await unenrolByUpstream(pod(), form);
      await expectAlive(older);
      const direct = await traffic.openAll();
      expect(traffic.accepted).toBe(opened + old.length + young.length);
      await expectAlive(direct);
      for (const call of [...older, ...direct]) call.close();
    });

    test("without open connections nothing of ours is left", async () => {
      const spec = specOf(traffic.lab);
      const dataplane = await givers.of(engine, form);
      await dataplane.capture(pod(), spec);
      await dataplane.handOver(pod(), spec);
      expect(await upstreamRulesIn(pod())).toBe(await rulesOfUpstream(form));
      await unenrolByUpstream(pod(), form);
      const seen = traffic.accepted;
      for (const call of await traffic.openAll()) call.close();
      expect(traffic.accepted).toBe(seen);
    });
  });
});
