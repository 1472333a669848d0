// SPDX-License-Identifier: Apache-2.0
// Hundreds of changes at once, with agents and ztunnels that come and go in between: in the end all must agree.
import { expect, test, vi } from "vitest";
import { DATAPLANE_MODE_LABEL } from "../../../../src/core/constants.ts";
import { ScratchDir } from "../../../support/scratch-dir.ts";
import { Chance, pause } from "./chance.ts";
import { StormNode } from "./storm-node.ts";

const CHANGES = 600;
const AMBIENT = { [DATAPLANE_MODE_LABEL]: "ambient" };

test.each([1, 2])(
  "a storm of changes, seed %d: calm pods notice nothing, and the others end as their labels say",
  async (seed) => {
    using dir = new ScratchDir();
    const chance = new Chance(seed);
    const node = new StormNode(chance, dir.path);
    const { cluster, dataplane } = node.world;
    cluster.putNamespace("shop", AMBIENT);
    cluster.putNamespace("flip", {});
    cluster.putNamespace("calm", AMBIENT);
    await node.run.agent.start();
    node.startZtunnel();
    const calm = ["c1", "c2", "c3"].map((name) => node.schedule("calm", name, {}, false));
    for (const pod of calm) await node.start(pod);
    node.faulty = true;

    const troubles = new Set<string>();
    const guard = setInterval(() => {
      for (const { name, netns = "" } of calm)
        if (dataplane.kernel.get(netns)?.mode !== "captured") troubles.add(`${name} is let out`);
      for (const { killed, exited } of node.models) {
        if (exited !== undefined) troubles.add(`ztunnel exits: ${exited}`);
        for (const { uid, name } of calm) if (killed.includes(uid)) troubles.add(`connections of ${name} are cut`);
      }
    }, 3);

    let changes = 0;
    let names = 0;
    const create = async () => {
      const name = `p${chance.is(0.3) ? chance.below(names + 1) : names++}`;
      const namespace = chance.is(0.3) ? "shop" : "flip";
      if ([...node.pods.values()].some((pod) => pod.namespace === namespace && pod.name === name)) return;
      await node.start(node.schedule(namespace, name, chance.is(0.3) ? anyMode() : {}, chance.is(0.2)));
    };
    const anyMode = (): Record<string, string> => ({ [DATAPLANE_MODE_LABEL]: chance.is(0.5) ? "ambient" : "none" });
    const relabel = () => {
      if (chance.is(0.3)) return cluster.putNamespace("flip", chance.is(0.5) ? AMBIENT : {});
      const pod = node.anyIdle();
      if (pod !== undefined) node.change(pod, { labels: chance.is(0.3) ? {} : anyMode() });
    };
    const flush = () => {
      const netns = node.anyIdle()?.netns;
      if (netns === undefined || dataplane.kernel.get(netns)?.mode !== "captured") return;
      dataplane.kernel.delete(netns);
      dataplane.touched(netns);
    };
    const change = async () => {
      const kind = chance.number();
      const idle = node.anyIdle();
      if (idle === undefined || kind < (node.pods.size < 25 ? 0.4 : 0.15)) await create();
      else if (kind < 0.5) await node.remove(idle);
      else if (kind < 0.58) await node.replace(idle);
      else if (kind < 0.62) flush();
      else relabel();
    };
    const worker = async () => {
      for (; changes < CHANGES; changes++) {
        await change();
        await pause(chance.number() * 4);
      }
    };
    const comeAndGo = async () => {
      for (;;) {
        await pause(80 + chance.number() * 150);
        // Of the last changes nobody may be relieved by a new beginning.
        if (changes > CHANGES * 0.7) return;
        const kind = chance.number();
        if (kind < 0.25) await node.restart(() => node.run.kill());
        else if (kind < 0.35) await node.restart(() => node.run.end(chance.number() * 60));
        else if (kind < 0.55) {
          node.startZtunnel();
          await pause(chance.number() * 60);
          node.endZtunnel();
        } else if (kind < 0.7) {
          node.endZtunnel();
          await pause(chance.number() * 80);
          node.startZtunnel();
        } else if (kind < 0.8) node.disconnectZtunnels();
        else {
          const failing = node.models.flatMap((model) => [...node.pods.keys()].map((uid) => ({ model, uid })));
          for (const { model, uid } of failing) if (chance.is(0.1)) model.failing.add(uid);
          await pause(50);
          for (const { model } of failing) model.failing.clear();
        }
      }
    };
    try {
      await Promise.all([...Array.from({ length: 8 }, worker), comeAndGo()]);
      node.faulty = false;
      await vi.waitFor(() => expect(node.disagreements()).toEqual([]), { timeout: 30_000, interval: 20 });
      expect([...troubles]).toEqual([]);
      expect(node.pods.size).toBeGreaterThan(calm.length);
    } finally {
      clearInterval(guard);
      node.stop();
    }
  },
  60_000,
);
