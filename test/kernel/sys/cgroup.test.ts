// SPDX-License-Identifier: Apache-2.0
// The kernel's own cgroup2 tree, seen from the machine and from inside a container's namespaces.
import { statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { native } from "../../../src/native/load.ts";
import { CgroupHierarchy } from "../../../src/sys/cgroup.ts";
import { CgroupVantage } from "../../../src/sys/cgroup-vantage.ts";
import { HostMounts } from "../../../src/sys/mounts.ts";
import { ztunnelPids } from "../../../src/sys/peer.ts";
import { Proc } from "../../../src/sys/proc.ts";
import type { Outlook } from "../../support/cgroup-onlooker.ts";
import { CgroupWorld, machineHierarchy } from "./world.ts";

const UID = "0b8bd02c-6c17-4d56-bb0a-5d2ba6b14b8a";
const inode = (path: string) => statSync(path, { bigint: true }).ino;

test("the machine's hierarchy is reached at its root", () => {
  expect(inode(machineHierarchy())).toBe(1n);
});

test("the id that the kernel gives a socket leads to the cgroup of who made it", async () => {
  await using world = new CgroupWorld();
  world.make("system/deep/er");
  const container = world.make(`kubepods/besteffort/pod${UID}/c1`);
  const bind = { address: "127.0.0.1", port: 0 };
  const listen = `require("net").createServer().listen(${JSON.stringify({ host: bind.address, port: 0 })}, function () { console.log(this.address().port) })`;
  const { lines } = world.start(container, [process.execPath, "-e", listen]);
  const port = Number((await lines.next()).value);
  const socket = native()
    .sockets(null, { protocol: "tcp", states: [10] })
    .find(({ srcPort }) => srcPort === port);
  const hierarchy = new CgroupHierarchy(world.root);
  const found = hierarchy.pathOf(socket?.cgroupId ?? 0n);
  expect(found).toBe(container);
  expect(hierarchy.podLevel(container)).toBe(`${world.root}/kubepods/besteffort/pod${UID}`);
  expect(hierarchy.idOf(container)).toBe(socket?.cgroupId);
});

test("the pods' cgroup holds them only if their processes are in it", async () => {
  await using world = new CgroupWorld();
  const hierarchy = new CgroupHierarchy(world.root);
  const container = world.make(`kubepods/besteffort/pod${UID}/c1`);
  // On a hybrid machine the pods of an unused tree are elsewhere; with all controllers in v2 they can't be.
  const pid = await world.process(container);
  expect(hierarchy.podsCgroup()).toEqual({
    path: `${world.root}/kubepods`,
    id: inode(`${world.root}/kubepods`),
    isRoot: false,
  });
  await world.end(pid);
  await world.process(world.make("kubepods.slice"));
  expect(hierarchy.podsCgroup().path).toBe(`${world.root}/kubepods.slice`);
});

test("an id that nobody has, and limits that end the search", async () => {
  await using world = new CgroupWorld();
  for (let pod = 0; pod < 20; pod++) world.make(`kubepods/pod${pod}/c`);
  const hierarchy = new CgroupHierarchy(world.root);
  const last = world.make("last/one");
  expect(hierarchy.pathOf(999_999_999n)).toBeUndefined();
  expect(hierarchy.pathOf(inode(last))).toBe(last);
  expect(hierarchy.pathOf(inode(last), { maxDirectories: 10 })).toBeUndefined();
  expect(hierarchy.pathOf(inode(last), { deadlineMs: -1 })).toBeUndefined();
  expect(hierarchy.pathOf(inode(`${world.root}/kubepods/pod7/c`), { maxDirectories: 43 })).toBeDefined();
});

test("from the machine: where a process lives, until it is gone", async () => {
  await using world = new CgroupWorld();
  const mount = new HostMounts("/proc").cgroup2();
  if (mount.path === undefined) throw new Error(mount.reason);
  const vantage = new CgroupVantage(new CgroupHierarchy(mount.path), mount);
  const container = world.make(`kubepods/pod${UID}/c1`);
  const pid = await world.process(container);
  expect(vantage.ofProcess(new Proc("/proc"), pid)).toBe(container);
  await world.end(pid);
  expect(vantage.ofProcess(new Proc("/proc"), pid)).toBeUndefined();
});

test("processes that call themselves ztunnel", async () => {
  await using world = new CgroupWorld();
  const { child, lines } = world.start(world.root, [
    "bash",
    "--norc",
    "-c",
    "printf ztunnel > /proc/self/comm; echo up; read -r _",
  ]);
  await lines.next();
  expect(ztunnelPids(new Proc("/proc"))).toContain(child.pid);
});

test("from a container: the node's hierarchy, cgroups of others, and who a peer in another pid namespace is", async () => {
  await using world = new CgroupWorld();
  const own = world.make(`kubepods/besteffort/pod${UID}/agent`);
  const beside = world.make(`kubepods/besteffort/pod${UID}/beside`);
  const other = world.make("kubepods/burstable/pod9/c9");
  const far = world.make("system/s");
  const cgroups = [own, beside, other, far];
  const pids: number[] = [];
  for (const cgroup of cgroups) pids.push(await world.process(cgroup));
  const hostProc = world.scratch.file("host-proc");
  const socket = world.scratch.file("s");
  const onlooker = fileURLToPath(new URL("../../support/cgroup-onlooker.ts", import.meta.url));
  const container = `
    set -e
    mkdir -p "$1" "$2"
    mount --bind /proc "$1"
    mount -t cgroup2 none "$2"
    exec unshare --pid --fork --kill-child=KILL --mount-proc "$3" --import tsx "$4" -- "$1" "$5" "\${@:6}"`;
  const { lines } = world.start(own, [
    ...["unshare", "--cgroup", "--mount", "--propagation=private", "bash", "--norc", "-c", container, "container"],
    ...[hostProc, world.scratch.file("own-cgroup"), process.execPath, onlooker, socket, ...pids.map(String)],
  ]);
  expect((await lines.next()).value).toBe("listening");
  const connection = native().seqpacketConnect(socket, { packet: () => {}, end: () => {} });
  const outlook = JSON.parse(String((await lines.next()).value)) as Outlook;
  connection.close();
  expect(outlook.reason).toBeUndefined();
  expect(outlook.ownPid).toBe(1);
  expect(outlook.cgroup2?.startsWith(`${hostProc}/`)).toBe(true);
  const base = machineHierarchy();
  expect(outlook.placed).toEqual(cgroups.map((path) => path.slice(base.length)));
  expect(outlook.peer).toEqual({ credential: 0, onNode: process.pid, here: undefined });
});
