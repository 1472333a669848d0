// SPDX-License-Identifier: Apache-2.0
// News of ztunnel go to every engine that wants them, and no engine's failure is anyone else's.
import { expect, test } from "vitest";
import { NodeDataplane } from "../../../src/dataplane/dataplane.ts";
import type { Engine } from "../../../src/dataplane/engine.ts";
import type { NativeBinding } from "../../../src/native/binding.ts";
import { LogRecorder, MetricRecorder } from "../../support/recorder.ts";
import { FakeNetns } from "../zds/harness.ts";

test("each engine hears of ztunnels and listeners; one that fails is logged", () => {
  const heard: string[] = [];
  const deaf: Partial<Engine> = { name: "iptables" };
  const broken: Partial<Engine> = {
    name: "ebpf",
    meet: () => {
      throw new Error("no such cgroup");
    },
  };
  const eager: Partial<Engine> = {
    name: "nftables",
    meet: ({ connection }) => heard.push(`meet ${connection}`),
    listenersOpened: ({ id }) => heard.push(`listeners of ${id}`),
  };
  const logger = new LogRecorder();
  const dataplane = new NodeDataplane({
    binding: {} as NativeBinding,
    logger,
    metrics: new MetricRecorder(),
    config: { engine: "auto" },
    engines: [deaf, broken, eager] as Engine[],
  });
  dataplane.meet({ connection: 3, pid: 0, pidfd: -1 });
  dataplane.listenersOpened(new FakeNetns(11));
  expect(heard).toEqual(["meet 3", "listeners of 4:11"]);
  expect(JSON.stringify(logger)).toContain("no such cgroup");
});
