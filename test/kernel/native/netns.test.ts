// SPDX-License-Identifier: Apache-2.0
import { spawn } from "node:child_process";
import { once } from "node:events";
import { openSync, readlinkSync, statSync } from "node:fs";
import { expect, test } from "vitest";
import { native } from "../../../src/native/load.ts";
import { createNetns, netnsIdOf, openNetns } from "../../../src/native/netns.ts";
import { guardFds } from "../../support/fds.ts";
import { inNetns } from "../../support/netns-lab.ts";

guardFds();

test("a new netns is empty, its lo is up, and it is another one than ours", async () => {
  using netns = createNetns();
  const links = JSON.parse(await inNetns(netns, "ip", "-j", "link"));
  expect(links).toHaveLength(1);
  expect(links[0]).toMatchObject({ ifname: "lo", flags: expect.arrayContaining(["UP", "LOWER_UP"]) });
  expect(await inNetns(netns, "readlink", "/proc/self/ns/net")).toContain(netns.id.split(":")[1]);
  expect(netns.id).not.toBe(ownId());
});

test("a netns opened by path has the identity that stat shows, however it was reached", async () => {
  using netns = createNetns();
  const holder = spawn("nsenter", ["--net=/proc/self/fd/3", "sleep", "60"], {
    stdio: ["ignore", "ignore", "ignore", netns.fd],
  });
  try {
    await expect.poll(() => readlinkSync(`/proc/${holder.pid}/ns/net`)).not.toBe(readlinkSync("/proc/self/ns/net"));
    using byPath = openNetns(`/proc/${holder.pid}/ns/net`);
    expect(byPath.id).toBe(netns.id);
    expect(native().netnsCookie(byPath.fd)).toBe(native().netnsCookie(netns.fd));
  } finally {
    holder.kill();
    await once(holder, "exit");
  }
});

test("cookies tell netns apart and the null argument is our own", () => {
  using a = createNetns();
  using b = createNetns();
  using own = openNetns("/proc/self/ns/net");
  const cookies = [a, b, own].map(({ fd }) => native().netnsCookie(fd));
  expect(new Set(cookies).size).toBe(3);
  expect(native().netnsCookie(null)).toBe(cookies[2]);
});

test.each([
  ["/dev/null", "EINVAL", "not a network namespace"],
  ["/proc/self/ns/mnt", "EINVAL", "not a network namespace"],
  ["/no/such/netns", "ENOENT", "/no/such/netns"],
])("opening %s fails with %s", (path, code, text) => {
  expect(() => openNetns(path)).toThrow(expect.objectContaining({ code, message: expect.stringContaining(text) }));
});

test("a fd that is no netns is refused by every kind of call", () => {
  const fd = openSync("/dev/null", "r");
  try {
    expect(() => native().netnsIdentify(fd)).toThrow(expect.objectContaining({ code: "EINVAL" }));
    expect(() => native().links(fd)).toThrow(expect.objectContaining({ code: "EINVAL", syscall: "setns" }));
    expect(() => native().sysctlGet(fd, "net/ipv4/ip_forward")).toThrow(expect.objectContaining({ syscall: "setns" }));
  } finally {
    native().close(fd);
  }
});

test("a closed handle throws instead of acting on whatever has its number now", () => {
  const netns = createNetns();
  netns.close();
  netns.close();
  expect(() => netns.fd).toThrow("new network namespace is closed");
});

test("openFds counts fds", () => {
  const before = native().openFds();
  using _netns = createNetns();
  expect(native().openFds()).toBe(before + 1);
});

function ownId(): string {
  const { dev, ino } = statSync("/proc/self/ns/net", { bigint: true });
  using own = openNetns("/proc/self/ns/net");
  expect(netnsIdOf(own.fd)).toBe(`${dev}:${ino}`);
  return own.id;
}
