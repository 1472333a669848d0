// SPDX-License-Identifier: Apache-2.0
import { spawn } from "node:child_process";
import { once } from "node:events";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { AddressFamily, RouteSpec, RuleSpec } from "../../../src/native/binding.ts";
import { native } from "../../../src/native/load.ts";
import { createNetns, type HeldNetns } from "../../../src/native/netns.ts";
import { guardFds } from "../../support/fds.ts";
import { inNetns } from "../../support/netns-lab.ts";

guardFds();

let netns: HeldNetns;
let peer: HeldNetns;
beforeEach(() => {
  netns = createNetns();
  peer = createNetns();
  native().vethAdd(netns.fd, "eth0", "far0", peer.fd);
});
afterEach(() => {
  netns.close();
  peer.close();
});

const ip = async (...argv: string[]) => JSON.parse(await inNetns(netns, "ip", "-j", ...argv));

test("links are those that ip shows, and a veth's peer is in the other netns", async () => {
  native().linkUp(netns.fd, "eth0");
  const shown = await ip("-d", "link");
  const listed = native().links(netns.fd);
  expect(listed.map(({ index, name, mtu, mac, kind }) => ({ index, name, mtu, mac, kind }))).toEqual(
    // biome-ignore lint/suspicious/noExplicitAny: the program's JSON
    shown.map((link: any) => ({
      index: link.ifindex,
      name: link.ifname,
      mtu: link.mtu,
      mac: link.address,
      kind: link.linkinfo?.info_kind ?? "",
    })),
  );
  expect(listed.map(({ up, loopback }) => ({ up, loopback }))).toEqual([
    { up: true, loopback: true },
    { up: true, loopback: false },
  ]);
  expect(
    native()
      .links(peer.fd)
      .map(({ name, up }) => ({ name, up })),
  ).toContainEqual({ name: "far0", up: false });

  native().linkDelete(netns.fd, "eth0");
  expect(
    native()
      .links(peer.fd)
      .map(({ name }) => name),
  ).toEqual(["lo"]);
});

test("addresses are added, listed and deleted; IPv6 ones are usable at once", async () => {
  native().linkUp(netns.fd, "eth0");
  native().linkUp(peer.fd, "far0");
  native().addressAdd(netns.fd, "eth0", "10.1.2.3", 24);
  native().addressAdd(netns.fd, "eth0", "fd00::3", 64);
  const [link] = await ip("addr", "show", "dev", "eth0");
  expect(link.addr_info).toContainEqual(expect.objectContaining({ local: "10.1.2.3", prefixlen: 24, scope: "global" }));
  const v6 = link.addr_info.find(({ local }: { local: string }) => local === "fd00::3");
  expect(v6).toMatchObject({ prefixlen: 64, nodad: true });
  expect(v6.tentative).toBeUndefined();
  expect(native().addresses(netns.fd)).toEqual(
    expect.arrayContaining([
      { ifindex: link.ifindex, family: 4, address: "10.1.2.3", prefix: 24, scope: "global" },
      { ifindex: link.ifindex, family: 6, address: "fd00::3", prefix: 64, scope: "global" },
      { ifindex: 1, family: 4, address: "127.0.0.1", prefix: 8, scope: "host" },
    ]),
  );
  native().addressDelete(netns.fd, "eth0", "10.1.2.3", 24);
  native().addressDelete(netns.fd, "eth0", "fd00::3", 64);
  expect(
    native()
      .addresses(netns.fd)
      .filter(({ ifindex, scope }) => ifindex !== 1 && scope === "global"),
  ).toEqual([]);
});

describe.each([
  [4, "0.0.0.0", "10.9.0.0", 16, "10.1.2.254"],
  [6, "::", "fd09::", 32, "fd00::fe"],
] as const)("IPv%i routes and rules", (family: AddressFamily, any, dst, prefix, gateway) => {
  const mine = { family, priority: 32764, table: 100, fwmark: 0x111, fwmask: 0xfff } satisfies RuleSpec;
  const local = { family, table: 100, type: "local", dst: any, prefix: 0, oif: 1 } satisfies RouteSpec;

  test("a local default route in its own table: replaced without a double, deleted by its spec", async () => {
    expect(native().routes(netns.fd, family, 100)).toEqual([]);
    native().routeReplace(netns.fd, local);
    native().routeReplace(netns.fd, local);
    expect(native().routes(netns.fd, family, 100)).toEqual([
      expect.objectContaining({ family, table: 100, type: "local", dst: any, prefix: 0, oif: 1, gateway: "", src: "" }),
    ]);
    expect(await ip(`-${family}`, "route", "show", "table", "100")).toEqual([
      expect.objectContaining({ type: "local", dst: "default", dev: "lo" }),
    ]);
    native().routeDelete(netns.fd, local);
    expect(await ip(`-${family}`, "route", "show", "table", "100")).toEqual([]);
    expect(() => native().routeDelete(netns.fd, local)).toThrow(expect.objectContaining({ code: "ESRCH" }));
  });

  test("a route with gateway, source and a table number beyond a byte", () => {
    const src = family === 4 ? "10.1.2.3" : "fd00::3";
    native().linkUp(netns.fd, "eth0");
    native().linkUp(peer.fd, "far0");
    native().addressAdd(netns.fd, "eth0", src, family === 4 ? 24 : 64);
    const oif = indexOf("eth0");
    const route = { family, table: 70_000, type: "unicast", dst, prefix, oif, gateway, src } satisfies RouteSpec;
    native().routeReplace(netns.fd, route);
    expect(native().routes(netns.fd, family, 70_000)).toEqual([expect.objectContaining(route)]);
    native().routeDelete(netns.fd, route);
    expect(native().routes(netns.fd, family, 70_000)).toEqual([]);
  });

  test("a rule exists once, equal to upstream's, and goes by its spec", async () => {
    // As upstream's agent adds it: no protocol.
    await inNetns(
      netns,
      "ip",
      `-${family}`,
      "rule",
      "add",
      "pref",
      "32764",
      "fwmark",
      "0x111/0xfff",
      "lookup",
      "100",
      "protocol",
      "0",
    );
    expect(() => native().ruleAdd(netns.fd, mine)).toThrow(expect.objectContaining({ code: "EEXIST" }));
    native().ruleDelete(netns.fd, mine);
    native().ruleAdd(netns.fd, mine);
    expect(native().rules(netns.fd, family)).toContainEqual({ ...mine, iif: "", to: "", toPrefix: 0 });
    expect(await ip(`-${family}`, "rule")).toContainEqual(
      expect.objectContaining({ priority: 32764, fwmark: "0x111", fwmask: "0xfff", table: "100" }),
    );
    native().ruleDelete(netns.fd, mine);
    expect(
      native()
        .rules(netns.fd, family)
        .map(({ priority }) => priority),
    ).not.toContain(32764);
    expect(() => native().ruleDelete(netns.fd, mine)).toThrow(expect.objectContaining({ code: "ENOENT" }));
  });

  test("a rule by interface and destination", () => {
    const rule = { family, priority: 7, table: 300, iif: "eth0", to: dst, toPrefix: prefix } satisfies RuleSpec;
    native().ruleAdd(netns.fd, rule);
    expect(native().rules(netns.fd, family)).toContainEqual({ ...rule, fwmark: 0, fwmask: 0 });
    native().ruleDelete(netns.fd, rule);
  });
});

test("errors name the object and carry the kernel's own words", () => {
  const missing = { family: 4, table: 100, type: "unicast", dst: "10.9.9.9", prefix: 8, oif: 1 } satisfies RouteSpec;
  expect(() => native().routeReplace(netns.fd, missing)).toThrow(
    "replace route 10.9.9.9/8 in table 100: Invalid argument: Invalid prefix for given prefix length (EINVAL)",
  );
  expect(() => native().addressAdd(netns.fd, "nope", "10.0.0.1", 24)).toThrow("find interface nope: No such device");
  expect(() => native().addressAdd(netns.fd, "eth0", "10.0.0.300", 24)).toThrow('parse "10.0.0.300"');
  expect(() => native().linkUp(netns.fd, "a/b")).toThrow('name an interface "a/b"');
  expect(() => native().linkUp(netns.fd, "sixteen-letters-")).toThrow(expect.objectContaining({ code: "EINVAL" }));
  expect(() => native().vethAdd(netns.fd, "eth0", "x", peer.fd)).toThrow(expect.objectContaining({ code: "EEXIST" }));
});

test("a dump larger than one buffer is whole", () => {
  const count = 3000;
  for (let i = 0; i < count; i++) {
    native().routeReplace(netns.fd, {
      family: 4,
      table: 9,
      type: "local",
      dst: `10.${i >> 8}.${i & 255}.1`,
      prefix: 32,
      oif: 1,
    });
  }
  const listed = native().routes(netns.fd, 4, 9);
  expect(new Set(listed.map(({ dst }) => dst)).size).toBe(count);
});

describe("a list that changes while it is read lacks nothing that stays", () => {
  /** Runs a shell script in the netns, and `read` again and again until it ends. */
  async function meanwhile(script: string, read: () => void): Promise<void> {
    const writer = spawn("nsenter", ["--net=/proc/self/fd/3", "sh", "-ec", script], {
      stdio: ["ignore", "inherit", "inherit", netns.fd],
    });
    const exited = once(writer, "exit");
    let reads = 0;
    while (writer.exitCode === null) {
      read();
      reads++;
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await exited).toEqual([0, null]);
    expect(reads).toBeGreaterThan(5);
  }

  test("rules", async () => {
    const constant = Array.from({ length: 1500 }, (_, i) => 1000 + i);
    for (const priority of constant) native().ruleAdd(netns.fd, { family: 4, priority, table: 9 });
    const flip = "for i in $(seq 100); do ip rule add pref 1 lookup 9; sleep 0.002; ip rule del pref 1; done";
    await meanwhile(flip, () => {
      const seen = new Set(
        native()
          .rules(netns.fd, 4)
          .map(({ priority }) => priority),
      );
      expect(constant.filter((priority) => !seen.has(priority))).toEqual([]);
    });
  });

  test("addresses", async () => {
    const all = Array.from({ length: 1500 }, (_, i) => `10.1.${i >> 8}.${i & 255}`);
    for (const address of all) native().addressAdd(netns.fd, "lo", address, 32);
    const constant = all.slice(100);
    const remove = "for i in $(seq 0 99); do ip addr del 10.1.0.$i/32 dev lo; sleep 0.002; done";
    await meanwhile(remove, () => {
      const seen = new Set(
        native()
          .addresses(netns.fd)
          .map(({ address }) => address),
      );
      expect(constant.filter((address) => !seen.has(address))).toEqual([]);
    });
  });
});

function indexOf(name: string): number {
  const link = native()
    .links(netns.fd)
    .find((candidate) => candidate.name === name);
  if (link === undefined) throw new Error(`no ${name}`);
  return link.index;
}
