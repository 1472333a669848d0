// SPDX-License-Identifier: Apache-2.0
// The finder on the real /proc, with real processes, namespaces and cgroups.
import { randomUUID } from "node:crypto";
import { readdirSync, statSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Pod } from "../../../src/core/pod.ts";
import { ProcNetnsFinder } from "../../../src/netns/finder.ts";
import { forkCount } from "../../../src/sys/exec.ts";
import { podWith, quiet, World } from "./world.ts";

let world: World;
let finder: ProcNetnsFinder;
const C = "c".repeat(64);
const fds = () => readdirSync("/proc/self/fd").length;

beforeEach(() => {
  world = new World();
  finder = new ProcNetnsFinder({ hostRoot: "/", procDir: "/proc", switchToHostNetns: true }, quiet);
});
afterEach(async () => {
  finder.close();
  await world.close();
});

/** uid -> netns id of what was found; closes the handles. */
async function find(...pods: Pod[]): Promise<Record<string, string>> {
  const found = await finder.find(pods);
  const ids = Object.fromEntries([...found].map(([uid, netns]) => [uid, netns.id]));
  for (const netns of found.values()) netns.close();
  return ids;
}

test("the host's netns is that of the initial namespace, also where pid 1 cannot be read", () => {
  const { dev, ino } = statSync("/proc/self/ns/net", { bigint: true });
  expect(finder.host().id).toBe(`${dev}:${ino}`);
});

test.each([
  ["cgroupfs", (uid: string) => `kubepods/besteffort/pod${uid}/${C}`],
  [
    "systemd",
    (uid: string) => `kubepods.slice/kubepods-pod${uid.replaceAll("-", "_")}.slice/cri-containerd-${C}.scope`,
  ],
  ["docker in docker", (uid: string) => `docker/${"d".repeat(64)}/kubelet/kubepods/burstable/pod${uid}/${C}`],
])("a pod's process in a real cgroup: %s", async (_, path) => {
  const uid = randomUUID();
  const netns = world.netns("10.1.0.1");
  await world.process(netns, world.cgroup(path(uid)));
  expect(await find(podWith(uid, ["10.1.0.1"]))).toEqual({ [uid]: netns.id });
});

test("IPv6 and dual stack: any address of the pod proves the netns", async () => {
  const [six, dual] = [randomUUID(), randomUUID()];
  const [a, b] = [world.netns("fd00:1::1"), world.netns("fd00:1::2")];
  await world.process(a, world.cgroup(`kubepods/pod${six}/${C}`));
  await world.process(b, world.cgroup(`kubepods/pod${dual}/${C}`));
  expect(await find(podWith(six, ["fd00:1::1"]), podWith(dual, ["10.1.0.2", "fd00:1::2"]))).toEqual({
    [six]: a.id,
    [dual]: b.id,
  });
});

test("the container's id finds a pod whose cgroup has no uid", async () => {
  const uid = randomUUID();
  const netns = world.netns("10.1.0.3");
  const id = "5".repeat(64);
  await world.process(netns, world.cgroup(`crio-${id}.scope`));
  expect(await find(podWith(uid, ["10.1.0.3"], { containerIds: [id] }))).toEqual({ [uid]: netns.id });
});

test("a static pod is found by the hash of its configuration", async () => {
  const [uid, thief] = [randomUUID(), randomUUID()];
  const hash = "0123456789abcdef0123456789abcdef";
  const netns = world.netns("10.1.0.4");
  await world.process(netns, world.cgroup(`kubepods/burstable/pod${hash}/${C}`));
  const annotations = { "kubernetes.io/config.hash": hash };
  expect(
    await find(podWith(thief, ["10.1.0.5"], { annotations }), podWith(uid, ["10.1.0.4"], { annotations })),
  ).toEqual({
    [uid]: netns.id,
  });
});

test("a process of the pod in the host's netns does not make that the pod's", async () => {
  const uid = randomUUID();
  await world.process(undefined, world.cgroup(`kubepods/pod${uid}/${C}`));
  expect(await find(podWith(uid, ["127.0.0.1"]))).toEqual({});
  const netns = world.netns("10.1.0.6");
  await world.process(netns, world.cgroup(`kubepods/pod${uid}/${C}`));
  expect(await find(podWith(uid, ["10.1.0.6"]))).toEqual({ [uid]: netns.id });
});

test("a foreign process in another pod's netns does not get that netns, its owner does", async () => {
  const [owner, foreign] = [randomUUID(), randomUUID()];
  const netns = world.netns("10.1.0.7");
  await world.process(netns, world.cgroup(`kubepods/pod${foreign}/${C}`));
  expect(await find(podWith(foreign, ["10.1.0.8"]))).toEqual({});
  await world.process(netns, world.cgroup(`kubepods/pod${owner}/${C}`));
  expect(await find(podWith(foreign, ["10.1.0.8"]), podWith(owner, ["10.1.0.7"]))).toEqual({ [owner]: netns.id });
});

test("several namespaces with the pod's address: that of the oldest process", async () => {
  const uid = randomUUID();
  const cgroup = world.cgroup(`kubepods/pod${uid}/${C}`);
  const [old, young] = [world.netns("10.1.0.9"), world.netns("10.1.0.9")];
  const first = await world.process(old, cgroup);
  // starttime counts ticks of 10 ms.
  await new Promise((resolve) => setTimeout(resolve, 40));
  await world.process(young, cgroup);
  expect(await find(podWith(uid, ["10.1.0.9"]))).toEqual({ [uid]: old.id });
  await world.end(first);
  expect(await find(podWith(uid, ["10.1.0.9"]))).toEqual({ [uid]: young.id });
});

test("a cgroup that a container made for itself does not lend it another pod's identity", async () => {
  const [victim, attacker] = [randomUUID(), randomUUID()];
  // The attacker's own netns, into which it has put the victim's address.
  const netns = world.netns("10.1.0.10");
  await world.process(netns, world.cgroup(`kubepods/pod${attacker}/${C}/kubepods/pod${victim}/${"d".repeat(64)}`));
  expect(await find(podWith(victim, ["10.1.0.10"]))).toEqual({});
});

test("pods without address, with host network or without process are not found", async () => {
  const [noAddress, hostNetwork, noProcess] = [randomUUID(), randomUUID(), randomUUID()];
  const netns = world.netns("10.1.0.11");
  await world.process(netns, world.cgroup(`kubepods/pod${noAddress}/${C}`));
  await world.process(netns, world.cgroup(`kubepods/pod${hostNetwork}/${C}`));
  expect(
    await find(
      podWith(noAddress, []),
      podWith(hostNetwork, ["10.1.0.11"], { hostNetwork: true }),
      podWith(noProcess, ["10.1.0.11"]),
    ),
  ).toEqual({});
  expect(await find()).toEqual({});
});

test("a netns that was replaced under the pod's uid is found anew", async () => {
  const uid = randomUUID();
  const cgroup = world.cgroup(`kubepods/pod${uid}/${C}`);
  const before = world.netns("10.1.0.12");
  const pid = await world.process(before, cgroup);
  expect(await find(podWith(uid, ["10.1.0.12"]))).toEqual({ [uid]: before.id });
  await world.end(pid);
  const after = world.netns("10.1.0.13");
  await world.process(after, cgroup);
  expect(await find(podWith(uid, ["10.1.0.13"]))).toEqual({ [uid]: after.id });
});

test("no fd is left behind and nothing is forked, whatever is found or rejected", async () => {
  const [mine, other] = [randomUUID(), randomUUID()];
  const netns = world.netns("10.1.0.14");
  await world.process(netns, world.cgroup(`kubepods/pod${mine}/${C}`));
  await world.process(world.netns("10.1.0.15"), world.cgroup(`kubepods/pod${other}/${C}`));
  const [before, forks] = [fds(), forkCount()];
  const pods = [podWith(mine, ["10.1.0.14"]), podWith(other, ["10.1.0.99"])];
  const found = await finder.find(pods);
  expect(fds()).toBe(before + 1);
  for (const handle of found.values()) handle.close();
  for (let i = 0; i < 20; i++) await find(...pods);
  expect(fds()).toBe(before);
  expect(forkCount()).toBe(forks);
});

test("the returned handle keeps the netns alive after its last process", async () => {
  const uid = randomUUID();
  const netns = world.netns("10.1.0.16");
  const pid = await world.process(netns, world.cgroup(`kubepods/pod${uid}/${C}`));
  const handle = (await finder.find([podWith(uid, ["10.1.0.16"])])).get(uid);
  await world.end(pid);
  expect(statSync(`/proc/self/fd/${handle?.fd}`, { bigint: true }).ino.toString()).toBe(netns.id.split(":")[1]);
  handle?.close();
  expect(() => handle?.fd).toThrow();
});

test("netns that processes live in, the host's left out; one that is only held is not among them", async () => {
  const [lived, held] = [world.netns("10.1.0.1"), world.netns("10.1.0.2")];
  await world.process(lived, world.cgroup(`kubepods/pod${randomUUID()}/${C}`));
  const inhabited = await finder.inhabited();
  expect(inhabited.has(lived.id)).toBe(true);
  expect(inhabited.has(held.id)).toBe(false);
  expect(inhabited.has(finder.host().id)).toBe(false);
});
