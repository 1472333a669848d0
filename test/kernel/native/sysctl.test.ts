// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from "node:child_process";
import { describe, expect, test } from "vitest";
import { native } from "../../../src/native/load.ts";
import { createNetns } from "../../../src/native/netns.ts";
import { guardFds } from "../../support/fds.ts";
import { inNetns } from "../../support/netns-lab.ts";

guardFds();

test("a sysctl is set in the netns and nowhere else", async () => {
  using netns = createNetns();
  const own = native().sysctlGet(null, "net/ipv4/ip_local_port_range");
  native().sysctlSet(netns.fd, "net/ipv4/ip_local_port_range", "50000 50060");
  expect(native().sysctlGet(netns.fd, "net/ipv4/ip_local_port_range")).toBe("50000\t50060");
  expect(await inNetns(netns, "sysctl", "-n", "net.ipv4.ip_local_port_range")).toBe("50000\t50060\n");
  expect(native().sysctlGet(null, "net/ipv4/ip_local_port_range")).toBe(own);
});

test("a list of ports that is longer than a page is written and read as a whole, and emptied", () => {
  using netns = createNetns();
  const key = "net/ipv4/ip_local_reserved_ports";
  const list = (first: number) => Array.from({ length: 5000 }, (_, index) => first + 2 * index).join(",");
  native().sysctlSet(netns.fd, key, list(30_000));
  expect(native().sysctlGet(netns.fd, key)).toBe(list(30_000));
  expect(native().sysctlSet(netns.fd, key, list(30_001))).toBe(list(30_000));
  expect(native().sysctlGet(netns.fd, key)).toBe(list(30_001));
  native().sysctlSet(netns.fd, key, "\n");
  expect(native().sysctlGet(netns.fd, key)).toBe("");
  expect(() => native().sysctlSet(netns.fd, key, `${list(30_000)},x`)).toThrow(
    expect.objectContaining({ message: expect.stringMatching(/^set sysctl \S+ to 30000,.{58}\.\.\.: Invalid/) }),
  );
});

test("an interface with a dot in its name is one part of the path", () => {
  using netns = createNetns();
  native().vethAdd(netns.fd, "eth0.100", "peer0", netns.fd);
  native().sysctlSet(netns.fd, "net/ipv4/conf/eth0.100/route_localnet", "1");
  expect(native().sysctlGet(netns.fd, "net/ipv4/conf/eth0.100/route_localnet")).toBe("1");
  expect(native().sysctlGet(netns.fd, "net/ipv4/conf/peer0/route_localnet")).toBe("0");
});

test("a value that the kernel refuses is named, with the key", () => {
  using netns = createNetns();
  expect(() => native().sysctlSet(netns.fd, "net/ipv4/ip_local_port_range", "9 1")).toThrow(
    "set sysctl net/ipv4/ip_local_port_range to 9 1: Invalid argument (EINVAL)",
  );
  expect(() => native().sysctlGet(netns.fd, "net/ipv4/no_such")).toThrow(
    expect.objectContaining({ code: "ENOENT", message: expect.stringContaining("net/ipv4/no_such") }),
  );
});

test.each(["kernel/core_pattern", "net/../kernel/core_pattern", "/net/ipv4/ip_forward", "net//x", "net/", "net", ""])(
  "key %j is refused",
  (key) => {
    expect(() => native().sysctlSet(null, key, "1")).toThrow(expect.objectContaining({ code: "EINVAL" }));
  },
);

describe("with /proc/sys mounted read-only", () => {
  const READ_ONLY_SYS = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys";
  const READ_ONLY_PROC = "mount --bind /proc /proc && mount -o remount,bind,ro /proc";

  /** The result of support/sysctl-jail.ts in namespaces of its own. */
  function inJail(
    readOnly: string,
    target: string,
    { wrapper = [], namespaces = [] }: { readonly wrapper?: string[]; readonly namespaces?: string[] } = {},
  ) {
    const program = [...wrapper, process.execPath, "--import", "tsx", "test/support/sysctl-jail.ts", target];
    const script = `${readOnly} && ${program.map((word) => `'${word}'`).join(" ")}`;
    const argv = [...namespaces, "--mount", "--net", "sh", "-c", script];
    return JSON.parse(execFileSync("unshare", argv, { encoding: "utf8" }));
  }

  // Root of a user namespace may not mount the proc of a pid namespace that is not its own.
  const NO_OWN_PROC = ["--user", "--map-root-user"];

  test.each([
    ["/proc/sys", READ_ONLY_SYS, []],
    ["all of /proc", READ_ONLY_PROC, []],
    ["/proc/sys, and no proc may be mounted", READ_ONLY_SYS, NO_OWN_PROC],
    ["all of /proc, and no proc may be mounted", READ_ONLY_PROC, NO_OWN_PROC],
  ])("%s: another netns and the own one are written, the process's own view stays read-only", (_, ro, namespaces) => {
    const refused = expect.stringContaining("EROFS");
    expect(inJail(ro, "other", { namespaces })).toEqual({
      before: refused,
      set: "done",
      value: "1",
      own: "0",
      after: refused,
      mountNamespaces: 1,
    });
    expect(inJail(ro, "own", { namespaces })).toMatchObject({
      before: refused,
      set: "done",
      value: "1",
      own: "1",
      after: refused,
    });
  });

  test("without CAP_SYS_ADMIN the error says what was refused", () => {
    const result = inJail(READ_ONLY_SYS, "own", {
      wrapper: ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"],
    });
    expect(result).toMatchObject({
      set:
        "EPERM set sysctl net/ipv4/tcp_fwmark_accept to 1: Operation not permitted: " +
        "/proc/sys is read-only and a mount namespace was refused (EPERM)",
      value: "0",
    });
  });
});
