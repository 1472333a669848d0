// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { parseMountinfo } from "../../../src/sys/mountinfo.ts";
import { HostMounts } from "../../../src/sys/mounts.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

let scratch: ScratchDir;
beforeEach(() => {
  scratch = new ScratchDir();
});
afterEach(() => scratch[Symbol.dispose]());

/** A process of a hand-made proc: its mounts as "type root point", and an empty root directory. */
function process(pid: number, mounts: readonly string[] = [], root = scratch.file(`root${pid}`)): void {
  const entry = scratch.file(`proc/${pid}`);
  mkdirSync(entry, { recursive: true });
  mkdirSync(root, { recursive: true });
  symlinkSync(root, `${entry}/root`);
  const line = (one: string, index: number) => {
    const [type, at, point] = one.split(" ");
    return `${index + 30} 29 0:${index + 90_000} ${at} ${point} rw,relatime shared:9 - ${type} ${type} rw\n`;
  };
  writeFileSync(`${entry}/mountinfo`, mounts.map(line).join(""));
  const flags = pid === 2 ? 0x20_0000 : 0;
  writeFileSync(`${entry}/stat`, `${pid} (any) S 0 0 0 0 -1 ${flags} ${"0 ".repeat(40)}\n`);
}

const hostMounts = () => new HostMounts(scratch.file("proc"));
/** The paths that were tried, in their order, as the reason names them. */
const tried = (reason: string | undefined) =>
  [...(reason ?? "").matchAll(/proc(\/\d+\/root\S*?): /g)].map(([, path]) => path);

test("a mountinfo line: optional fields or none, escaped characters", () => {
  const text =
    "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 propagate_from:2 - ext3 /dev/root rw\n" +
    "41 31 0:38 /../.. /sys/fs\\040\\134x rw - cgroup2 none rw\n\nnonsense\n";
  expect(parseMountinfo(text)).toEqual([
    { device: "98:0", root: "/mnt1", point: "/mnt2", type: "ext3" },
    { device: "0:38", root: "/../..", point: "/sys/fs \\x", type: "cgroup2" },
  ]);
});

test("of several cgroup2 mounts the one nearest to the hierarchy's root is tried first", () => {
  process(1, [
    "cgroup2 /../../kubepods /a",
    "cgroup2 /../.. /run/long",
    "cgroup2 /../.. /b",
    "cgroup /../../.. /v1",
    "cgroup2 / /own",
  ]);
  const { path, reason } = hostMounts().cgroup2();
  expect(path).toBeUndefined();
  expect(tried(reason)).toEqual(["/1/root/b", "/1/root/run/long", "/1/root/own", "/1/root/a"]);
});

test("of several bpf mounts only the usual one serves, and none that shows a part", () => {
  process(1, ["bpf / /x", "bpf /globals /y", "bpf / /sys/fs/bpf"]);
  expect(tried(hostMounts().bpffs().reason)).toEqual(["/1/root/sys/fs/bpf"]);
});

test("a mount that another one covers is none", () => {
  process(1, ["cgroup2 /../.. /sys/fs/cgroup", "tmpfs / /sys/fs/cgroup", "cgroup2 /.. /b", "cgroup2 / /b"]);
  expect(tried(hostMounts().cgroup2().reason)).toEqual(["/1/root/b"]);
});

test("what is mounted over it counts, not what the list says", () => {
  process(1, ["bpf / /sys/fs/bpf"]);
  mkdirSync(scratch.file("root1/sys/fs/bpf"), { recursive: true });
  expect(hostMounts().bpffs().reason).toContain("/1/root/sys/fs/bpf: something else is mounted over it");
});

test("where the first process is closed to us a kernel thread's view serves", () => {
  process(1, ["cgroup2 / /closed"]);
  rmSync(scratch.file("root1"), { recursive: true });
  process(3, ["cgroup2 / /wrong"]);
  process(2, ["cgroup2 / /right"]);
  const { reason } = hostMounts().cgroup2();
  expect(reason).toContain("/1/root: ENOENT");
  expect(reason).toContain("/2/root/right: ENOENT");
  expect(reason).not.toContain("/3/root");
});

test("a proc that is not there is named", () => {
  expect(new HostMounts("/nowhere").bpffs().reason).toContain("/nowhere/1/root: ENOENT");
});
