// SPDX-License-Identifier: Apache-2.0
// Paths as a runtime hands them to the plugin.
import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { AgentError } from "../../../src/core/errors.ts";
import type { NetnsHandle } from "../../../src/core/ports/netns.ts";
import { ProcNetnsFinder } from "../../../src/netns/finder.ts";
import { run } from "../../../src/sys/exec.ts";
import { quiet, World } from "./world.ts";

let world: World;
let name = "";
const finders: ProcNetnsFinder[] = [];

beforeEach(() => {
  world = new World();
  name = `ambient-test-${randomUUID().slice(0, 8)}`;
  execFileSync("ip", ["netns", "add", name]);
});
afterEach(async () => {
  for (const finder of finders.splice(0)) finder.close();
  execFileSync("ip", ["netns", "delete", name]);
  await world.close();
});

function finder(hostRoot: string, procDir = "/proc"): ProcNetnsFinder {
  const made = new ProcNetnsFinder({ hostRoot, procDir, switchToHostNetns: true }, quiet);
  finders.push(made);
  return made;
}
/** A host root as the chart mounts it: only /var/run/netns of the host is there. */
function chartRoot(): string {
  const root = join(world.dir, "host");
  mkdirSync(join(root, "var/run/netns"), { recursive: true });
  return root;
}
function idAndClose(netns: NetnsHandle): string {
  const { id } = netns;
  netns.close();
  return id;
}
function failure(attempt: () => unknown): AgentError {
  try {
    attempt();
  } catch (error) {
    if (error instanceof AgentError) return error;
    throw error;
  }
  throw new Error("no error");
}

test("on the node itself, by both names of the directory", () => {
  for (const root of ["/", ""]) {
    const f = finder(root);
    const ids = ["/run/netns/", "/var/run/netns/"].map((dir) => idAndClose(f.open(dir + name)));
    expect(ids[0]).toBe(ids[1]);
    expect(ids[0]).not.toBe(f.host().id);
  }
});

test("below the host root as the chart mounts it, whatever the runtime calls the directory", () => {
  const root = chartRoot();
  writeFileSync(join(root, "var/run/netns", name), "");
  execFileSync("mount", ["--bind", `/run/netns/${name}`, join(root, "var/run/netns", name)]);
  try {
    const f = finder(root);
    const expected = idAndClose(finder("/").open(`/run/netns/${name}`));
    for (const dir of ["/var/run/netns", "/run/netns", "/var/run/docker/netns"]) {
      expect(idAndClose(f.open(`${dir}/${name}`))).toBe(expected);
    }
  } finally {
    execFileSync("umount", [join(root, "var/run/netns", name)]);
  }
});

test("/proc/PID/ns/net is read in the node's proc, not in ours", async () => {
  const netns = world.netns("10.4.0.1");
  const pid = await world.process(netns);
  expect(idAndClose(finder("/").open(`/proc/${pid}/ns/net`))).toBe(netns.id);
  expect(idAndClose(finder(chartRoot()).open(`/proc/${pid}/task/${pid}/ns/net`))).toBe(netns.id);
  const node = world.netns();
  world.fakeProcess(1, node, "0::/\n", 1);
  world.fakeProcess(77, netns, "0::/\n", 1);
  expect(idAndClose(finder(chartRoot(), world.procDir).open("/proc/77/ns/net"))).toBe(netns.id);
});

test("through the node's pid 1 where no netns directory is mounted, as in the stock chart without ambient", () => {
  const root = join(world.dir, "bare");
  const pid1 = join(world.procDir, "1/root/run/netns");
  mkdirSync(root, { recursive: true });
  world.fakeProcess(1, world.netns(), "0::/\n", 1);
  mkdirSync(pid1, { recursive: true });
  writeFileSync(join(pid1, name), "");
  symlinkSync("/etc/passwd", join(pid1, "link"));
  execFileSync("mount", ["--bind", `/run/netns/${name}`, join(pid1, name)]);
  try {
    const f = finder(root, world.procDir);
    const expected = idAndClose(finder("/").open(`/run/netns/${name}`));
    for (const dir of ["/var/run/netns", "/run/netns"]) expect(idAndClose(f.open(`${dir}/${name}`))).toBe(expected);
    for (const other of ["gone", "link"]) {
      expect(failure(() => f.open(`/var/run/netns/${other}`)).code).toBe("NETNS_NOT_FOUND");
    }
  } finally {
    execFileSync("umount", [join(pid1, name)]);
  }
});

test("the node's own netns is refused, by whatever path", () => {
  const f = finder("/");
  expect(failure(() => f.open(`/proc/${process.pid}/ns/net`)).code).toBe("NETNS_IS_HOST");
  const link = join(world.dir, "link");
  symlinkSync(`/run/netns/${name}`, link);
  expect(idAndClose(f.open(link))).not.toBe(f.host().id);
});

test.each(["", "relative", "/var/run/netns/../../etc/passwd", "/a\u0000b", `/${"x".repeat(5000)}`])(
  "%j is no path",
  (path) => {
    expect(failure(() => finder("/").open(path))).toMatchObject({ code: "NETNS_PATH_INVALID" });
  },
);

test("a symbolic link that leads out of the host root is refused", () => {
  const root = chartRoot();
  symlinkSync(`/run/netns/${name}`, join(root, "var/run/netns/escape"));
  symlinkSync("/run/netns", join(root, "var/run/escape"));
  const f = finder(root);
  const error = failure(() => f.open("/var/run/netns/escape"));
  expect(error.code).toBe("NETNS_PATH_INVALID");
  expect(error.message).toContain("leads out of");
  expect(failure(() => f.open(`/var/run/escape/${name}`)).code).toBe("NETNS_PATH_INVALID");
});

test("what is gone says where it was looked for and what to mount; what is no netns says so", async () => {
  const f = finder(chartRoot());
  const gone = failure(() => f.open("/var/run/netns/gone"));
  expect(gone).toMatchObject({ code: "NETNS_NOT_FOUND", remedy: expect.stringContaining("cniNetnsDir") });
  expect(gone.message).toContain("/var/run/netns/gone");
  expect(failure(() => finder("/no/such/root").open("/var/run/netns/x")).code).toBe("NETNS_NOT_FOUND");
  expect(failure(() => f.open("/proc/999999999/ns/net")).code).toBe("NETNS_NOT_FOUND");
  writeFileSync(join(world.dir, "host/var/run/netns/file"), "");
  expect(failure(() => f.open("/var/run/netns/file")).code).toBe("NETNS_PATH_INVALID");
});

test("no fd is left behind by what is refused", () => {
  const f = finder("/");
  const before = readdirSync("/proc/self/fd").length;
  for (let i = 0; i < 20; i++) {
    failure(() => f.open(`/proc/${process.pid}/ns/net`));
    failure(() => f.open("/etc/passwd"));
  }
  expect(readdirSync("/proc/self/fd").length).toBe(before);
});

test("programs run inside a held netns, and nowhere else", async () => {
  const netns = world.netns("10.4.0.9");
  const { stdout } = await run(["ip", "-o", "addr"], { netns: netns.fd, timeoutMs: 5000 });
  expect(stdout).toContain("10.4.0.9/32");
  const outside = await run(["ip", "-o", "addr"], { timeoutMs: 5000 });
  expect(outside.stdout).not.toContain("10.4.0.9/32");
});
