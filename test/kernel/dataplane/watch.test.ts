// SPDX-License-Identifier: Apache-2.0
// Whatever may undo a capture calls back, and what is stopped stays silent and holds no fd.
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import type { NodeDataplane } from "../../../src/dataplane/dataplane.ts";
import { native } from "../../../src/native/load.ts";
import { createNetns } from "../../../src/native/netns.ts";
import { specOf, startDataplane } from "../../support/lab-dataplane.ts";
import { inNetns, NetnsLab } from "../../support/netns-lab.ts";

let dataplane: NodeDataplane;
let lab: NetnsLab;

beforeAll(async () => {
  dataplane = await startDataplane();
});
afterAll(() => dataplane.close());
beforeEach(async () => {
  lab = NetnsLab.create();
  await dataplane.capture(lab.pod.netns, specOf(lab));
});
afterEach(() => lab.close());

test.each([
  ["nft flush table inet ambient-cni", "differs"],
  ["nft delete table inet ambient-cni", "absent"],
  ["ip rule del pref 32764", "differs"],
  ["ip -6 rule del pref 32764", "differs"],
  ["ip route flush table 100", "differs"],
  ["ip -6 route flush table 100", "differs"],
  // The kernel deletes the IPv4 route with it, and tells nobody.
  ["ip link set lo down", "differs"],
])("%s", async (command, mode) => {
  let seen: string | undefined;
  const stop = dataplane.watch(lab.pod.netns, () => {
    seen = dataplane.observe(lab.pod.netns, specOf(lab)).mode;
  });
  await inNetns(lab.pod.netns, "sh", "-c", command);
  await expect.poll(() => seen).toBe(mode);
  stop();
});

test("a hundred changes are told a few times, and another netns not at all", async () => {
  using other = createNetns();
  const changed = vi.fn();
  const elsewhere = vi.fn();
  const stops = [dataplane.watch(lab.pod.netns, changed), dataplane.watch(other, elsewhere)];
  const started = performance.now();
  for (let i = 0; i < 100; i++) native().addressAdd(lab.pod.netns.fd, "eth0", `10.66.1.${i + 1}`, 32);
  await expect.poll(() => changed.mock.calls.length).toBeGreaterThan(0);
  const rounds = Math.ceil((performance.now() - started) / 20) + 1;
  expect(changed.mock.calls.length).toBeLessThanOrEqual(rounds);
  expect(elsewhere).not.toHaveBeenCalled();
  for (const stop of stops) stop();
});

test("stopped, also twice and with a call pending, it is silent and has given back its fds", async () => {
  const fds = native().openFds();
  const changed = vi.fn();
  const stop = dataplane.watch(lab.pod.netns, changed);
  expect(native().openFds()).toBeGreaterThan(fds);
  native().addressAdd(lab.pod.netns.fd, "eth0", "10.66.1.1", 32);
  stop();
  stop();
  await expect.poll(() => native().openFds()).toBe(fds);
  native().addressAdd(lab.pod.netns.fd, "eth0", "10.66.1.2", 32);
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(changed).not.toHaveBeenCalled();
});
