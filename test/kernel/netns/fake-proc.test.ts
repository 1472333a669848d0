// SPDX-License-Identifier: Apache-2.0
// The finder on a proc directory that the test writes, so that ages, errors and hosts can be chosen.
import { randomUUID } from "node:crypto";
import { mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { AgentError } from "../../../src/core/errors.ts";
import { native } from "../../../src/native/load.ts";
import type { HeldNetns } from "../../../src/native/netns.ts";
import { ProcNetnsFinder } from "../../../src/netns/finder.ts";
import { NodeResidents } from "../../../src/netns/residents.ts";
import { podWith, quiet, World } from "./world.ts";

let world: World;
let node: HeldNetns;
const finders: ProcNetnsFinder[] = [];
const C = "c".repeat(64);
const KTHREAD = 0x208040;

beforeEach(() => {
  world = new World();
  node = world.netns("192.0.2.1");
  world.fakeProcess(1, node, "0::/init.scope\n", 1, "systemd");
});
afterEach(async () => {
  for (const finder of finders.splice(0)) finder.close();
  await world.close();
});

function finder(switchToHostNetns = true): ProcNetnsFinder {
  const made = new ProcNetnsFinder({ hostRoot: "/", procDir: world.procDir, switchToHostNetns }, quiet);
  finders.push(made);
  return made;
}
const unreadable = (pid: number) => rmSync(join(world.procDir, String(pid), "ns", "net"));
const pod = (uid: string, ip: string) => podWith(uid, [ip]);
async function idOf(from: ProcNetnsFinder, uid: string, ip: string): Promise<string | undefined> {
  const netns = (await from.find([pod(uid, ip)])).get(uid);
  netns?.close();
  return netns?.id;
}

test("the host is pid 1's netns, and no pod gets it", async () => {
  const uid = randomUUID();
  world.fakeProcess(20, node, `0::/kubepods/pod${uid}/${C}`, 5);
  const f = finder();
  expect(f.host().id).toBe(node.id);
  expect(await idOf(f, uid, "192.0.2.1")).toBeUndefined();
});

test("with the node's network shared, the host is our own netns", () => {
  expect(finder(false).host().id).not.toBe(node.id);
});

test("pid 1 unreadable: a kernel thread tells the host", async () => {
  unreadable(1);
  world.fakeProcess(2, node, "0::/\n", 1, "kthreadd", KTHREAD);
  const uid = randomUUID();
  world.fakeProcess(20, node, `0::/kubepods/pod${uid}/${C}`, 5);
  const f = finder();
  expect(f.host().id).toBe(node.id);
  expect(await idOf(f, uid, "192.0.2.1")).toBeUndefined();
});

test("no kernel threads either (a node in a container): kubelet tells, one in a pod does not", () => {
  unreadable(1);
  const pods = world.netns("10.2.0.1");
  world.fakeProcess(2, pods, `0::/kubepods/pod${randomUUID()}/${C}`, 1, "kubelet");
  world.fakeProcess(30, node, "0::/kubelet.slice/kubelet.service", 5, "kubelet");
  expect(finder().host().id).toBe(node.id);
});

test("nobody tells: a clear error, because any netns could be the node's", () => {
  unreadable(1);
  world.fakeProcess(30, world.netns(), "0::/system.slice/x.service", 5, "x");
  const attempt = () => finder();
  expect(attempt).toThrow(AgentError);
  expect(attempt).toThrow(/cannot tell the node's own network namespace .*pid 1: ENOENT/);
});

test("no proc of the node: a clear error that says what to mount", () => {
  const attempt = () =>
    new ProcNetnsFinder({ hostRoot: "/", procDir: "/no/such/proc", switchToHostNetns: true }, quiet);
  expect(attempt).toThrow(AgentError);
  expect(attempt).toThrow(/cannot read the node's processes in \/no\/such\/proc/);
});

test("age is the start time, not the pid: pids wrap", async () => {
  const uid = randomUUID();
  const [old, young] = [world.netns("10.2.0.2"), world.netns("10.2.0.2")];
  world.fakeProcess(50, young, `0::/kubepods/pod${uid}/${C}`, 900);
  world.fakeProcess(4000, old, `0::/kubepods/pod${uid}/${C}`, 100);
  expect(await idOf(finder(), uid, "10.2.0.2")).toBe(old.id);
});

test("the oldest process in a foreign netns does not hide the pod's own", async () => {
  const uid = randomUUID();
  const [foreign, own] = [world.netns("10.2.0.3"), world.netns("10.2.0.4")];
  world.fakeProcess(50, foreign, `0::/kubepods/pod${uid}/${C}`, 1);
  world.fakeProcess(51, own, `0::/kubepods/pod${uid}/${C}`, 2);
  expect(await idOf(finder(), uid, "10.2.0.4")).toBe(own.id);
});

test("one netns goes to one pod", async () => {
  const [a, b] = [randomUUID(), randomUUID()];
  const netns = world.netns("10.2.0.5");
  world.fakeProcess(50, netns, `0::/kubepods/pod${a}/${C}`, 1);
  world.fakeProcess(51, netns, `0::/kubepods/pod${b}/${C}`, 2);
  const found = await finder().find([pod(a, "10.2.0.5"), pod(b, "10.2.0.5")]);
  expect([...found.keys()]).toEqual([a]);
  for (const handle of found.values()) handle.close();
});

test("entries that cannot be read never end the pass", async () => {
  const uid = randomUUID();
  const netns = world.netns("10.2.0.6");
  world.fakeProcess(40, undefined, `0::/kubepods/pod${uid}/${C}`, 1);
  world.fakeProcess(41, netns, "garbage", 1);
  world.fakeProcess(42, netns, `0::/kubepods/pod${uid}/${C}`, 1);
  writeFileSync(join(world.procDir, "42", "stat"), "garbage");
  mkdirSync(join(world.procDir, "43"));
  writeFileSync(join(world.procDir, "44"), "a file");
  mkdirSync(join(world.procDir, "45", "ns"), { recursive: true });
  symlinkSync("/dev/null", join(world.procDir, "45", "ns", "net"));
  writeFileSync(join(world.procDir, "45", "cgroup"), `0::/kubepods/pod${uid}/${C}`);
  writeFileSync(join(world.procDir, "45", "stat"), "45 (x) S 1 1 1 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 1 9 9");
  world.fakeProcess(46, netns, `0::/kubepods/pod${uid}/${C}`, 7);
  expect(await idOf(finder(), uid, "10.2.0.6")).toBe(netns.id);
});

test("a node that itself lives in a pod finds its own pods", async () => {
  rmSync(join(world.procDir, "1"), { recursive: true });
  const outer = `/kubepods/burstable/pod${randomUUID()}/${"e".repeat(64)}`;
  world.fakeProcess(1, node, `0::${outer}/init.scope\n`, 1, "systemd");
  const uid = randomUUID();
  const netns = world.netns("10.2.0.7");
  world.fakeProcess(60, netns, `0::${outer}/kubelet/kubepods/pod${uid}/${C}`, 5);
  expect(await idOf(finder(), uid, "10.2.0.7")).toBe(netns.id);
});

test("200 pods among 2,000 processes in one pass, without holding the event loop", async () => {
  const pods = Array.from({ length: 200 }, (_, i) => pod(randomUUID(), `10.3.${i >> 8}.${i & 255}`));
  const namespaces = pods.map(({ ips }) => world.netns(...ips));
  for (let i = 0; i < 2000; i++) {
    const index = i % 400;
    const own = pods[index];
    if (own === undefined) world.fakeProcess(100 + i, node, "0::/system.slice/x.service", i);
    else world.fakeProcess(100 + i, namespaces[index], `0::/kubepods/burstable/pod${own.uid}/${C}`, i);
  }
  const f = finder();
  let longest = 0;
  let turns = 0;
  let last = performance.now();
  const turn = () => {
    longest = Math.max(longest, performance.now() - last);
    last = performance.now();
    turns += 1;
    if (watching) setImmediate(turn);
  };
  let watching = true;
  turn();
  const fds = readdirSync("/proc/self/fd").length;
  const started = performance.now();
  const found = await f.find(pods);
  const milliseconds = performance.now() - started;
  watching = false;
  expect(found.size).toBe(200);
  for (const [index, { uid }] of pods.entries()) expect(found.get(uid)?.id).toBe(namespaces[index]?.id);
  for (const handle of found.values()) handle.close();
  expect(readdirSync("/proc/self/fd").length).toBe(fds);
  expect(native().openFds()).toBeGreaterThan(0);
  console.log(
    `one pass, 200 pods, 2000 processes: ${milliseconds.toFixed(0)} ms, longest turn ${longest.toFixed(1)} ms`,
  );
  // How long is for the log, since machines are busy; a pass in one go would leave one turn.
  expect(turns).toBeGreaterThan(3);
  expect(milliseconds).toBeLessThan(5000);
});

test("for one command the node's processes are gone through once; who comes later is found when asked for", async () => {
  const [early, late] = [randomUUID(), randomUUID()];
  const netns = world.netns("192.0.2.20");
  world.fakeProcess(20, netns, `0::/kubepods/pod${early}/${C}`, 5);
  const residents = new NodeResidents(world.procDir);
  const seen = async () => {
    const all = await residents.all();
    for (const resident of all) resident.netns.close();
    return all.map(({ podUid, pid }) => [podUid, pid]);
  };
  expect(await seen()).toEqual([[early, "20"]]);
  expect(await residents.processIn(netns.id)).toBe("20");
  const others = world.netns("192.0.2.21");
  world.fakeProcess(21, others, `0::/kubepods/pod${late}/${C}`, 6);
  expect(await seen()).toEqual([[early, "20"]]);
  expect(await residents.processIn(others.id)).toBeUndefined();
  const found = await residents.of(late);
  found?.netns.close();
  expect(found).toMatchObject({ podUid: late, pid: "21" });
  // Its number is another's now: it is not taken for it.
  rmSync(join(world.procDir, "20"), { recursive: true });
  world.fakeProcess(20, others, `0::/kubepods/pod${late}/${C}`, 7);
  expect(await residents.processIn(netns.id)).toBeUndefined();
  expect(await residents.of(early)).toBeUndefined();
  expect(await residents.of("none of these")).toBeUndefined();
});
