// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { NftRule, NftTable } from "../../../src/native/binding.ts";
import { OwnedFd } from "../../../src/native/fd.ts";
import { native } from "../../../src/native/load.ts";
import { createNetns, type HeldNetns } from "../../../src/native/netns.ts";
import { guardFds } from "../../support/fds.ts";
import { inNetns } from "../../support/netns-lab.ts";

guardFds();

let netns: HeldNetns;
beforeEach(() => {
  netns = createNetns();
});
afterEach(() => {
  netns.close();
});

const nft = (where: HeldNetns, text: string) => inNetns(where, "nft", text);

const TABLE = `table inet ours {
  comment "format 1";
  set probes { type ipv4_addr; elements = { 10.0.0.1 comment "uid-1", 10.0.0.2 }; }
  set probes6 { type ipv6_addr; elements = { fd00::1 comment "uid-6" }; }
  set ranges { type ipv4_addr; flags interval; elements = { 10.9.0.0/16 comment "net", 10.0.0.7, 10.0.0.8, 255.255.255.0/24 }; }
  set ports { type inet_service; elements = { 80, 15001 }; }
  chain out {
    type nat hook output priority -100; policy accept;
    meta mark & 0xfff == 0x539 return comment "ztunnel's own"
    ip daddr != { 127.0.0.0/8, 10.0.0.1 } meta l4proto tcp counter redirect to :15001 comment "outbound"
    tcp dport { 25, 465 } counter accept
    jump extra
  }
  chain extra {
  }
}`;

function read(where: HeldNetns): NftTable {
  const table = native().nftTable(where.fd, "inet", "ours");
  if (table === undefined) throw new Error("no table ours");
  return table;
}

const digests = (rules: readonly NftRule[]) => rules.map(({ digest }) => digest);

test("an empty netns has no tables, and asking for one is no error", () => {
  expect(native().nftTables(netns.fd)).toEqual([]);
  expect(native().nftTable(netns.fd, "inet", "ours")).toBeUndefined();
});

test("a table is read with its comment, chains, rules and sets, as nft lists them", async () => {
  await nft(netns, TABLE);
  await nft(netns, "table ip other { chain c { counter; }; }");
  expect(native().nftTables(netns.fd)).toEqual(["inet ours", "ip other"]);
  const table = read(netns);
  expect(table.comment).toBe("format 1");
  expect(table.dormant).toBe(false);
  expect(table.chains).toEqual([
    { name: "out", type: "nat", hook: 3, priority: -100, policy: "accept" },
    { name: "extra", type: "", hook: -1, priority: 0, policy: "" },
  ]);
  expect(table.sets).toEqual(["probes", "probes6", "ranges", "ports"]);
  expect(table.rules.map(({ chain, comment }) => ({ chain, comment }))).toEqual([
    { chain: "out", comment: "ztunnel's own" },
    { chain: "out", comment: "outbound" },
    { chain: "out", comment: "" },
    { chain: "out", comment: "" },
  ]);
  const listed = JSON.parse(await inNetns(netns, "nft", "-j", "-a", "list", "table", "inet", "ours"));
  const handles = listed.nftables.flatMap(({ rule }: { rule?: { handle: number } }) => rule?.handle ?? []);
  expect(table.rules.map(({ handle }) => Number(handle))).toEqual(handles);
});

test("a table that is out of force and a chain that drops say so", async () => {
  await nft(netns, "table inet t { flags dormant; chain c { type filter hook input priority 0; policy drop; }; }");
  const table = native().nftTable(netns.fd, "inet", "t");
  expect(table?.dormant).toBe(true);
  expect(table?.chains).toEqual([{ name: "c", type: "filter", hook: 1, priority: 0, policy: "drop" }]);
});

test("sets are read with comments; intervals as first-last", async () => {
  await nft(netns, TABLE);
  const set = (name: string) => native().nftSet(netns.fd, "inet", "ours", name);
  expect([...set("probes")].sort((a, b) => a.key.localeCompare(b.key))).toEqual([
    { key: "10.0.0.1", comment: "uid-1" },
    { key: "10.0.0.2", comment: "" },
  ]);
  expect(set("probes6")).toEqual([{ key: "fd00::1", comment: "uid-6" }]);
  expect(set("ranges").map(({ key }) => key)).toEqual([
    "10.0.0.7",
    "10.0.0.8",
    "10.9.0.0-10.9.255.255",
    "255.255.255.0-255.255.255.255",
  ]);
  expect(
    set("ports")
      .map(({ key }) => key)
      .sort(),
  ).toEqual(["0050", "3a99"]);
  expect(() => set("none")).toThrow(
    expect.objectContaining({ code: "ENOENT", message: expect.stringContaining("none") }),
  );
});

test("a large set is read whole", async () => {
  await nft(netns, "table ip t { set s { type ipv4_addr; }; }");
  const keys = Array.from({ length: 5000 }, (_, i) => `10.7.${i >> 8}.${i & 255}`);
  for (let i = 0; i < keys.length; i += 1000) {
    await nft(netns, `add element ip t s { ${keys.slice(i, i + 1000).join(", ")} }`);
  }
  expect(
    new Set(
      native()
        .nftSet(netns.fd, "ip", "t", "s")
        .map(({ key }) => key),
    ),
  ).toEqual(new Set(keys));
});

test("equal rules have equal digests in every netns, after traffic and after a replacement", async () => {
  await nft(netns, TABLE);
  const first = digests(read(netns).rules);
  expect(new Set(first).size).toBe(first.length);

  using another = createNetns();
  await nft(another, TABLE);
  expect(digests(read(another).rules)).toEqual(first);

  await nft(netns, `delete table inet ours; ${TABLE}`);
  expect(digests(read(netns).rules)).toEqual(first);

  // 127.0.0.2 is exempt; port 465 meets the counter of the third rule.
  await expect(
    native().tcpConnect(netns.fd, { family: 4, address: "127.0.0.2", port: 465, timeout: 500 }),
  ).rejects.toThrow();
  const after = read(netns);
  expect(after.rules.map(({ packets }) => packets)).toEqual([0n, 0n, 1n, 0n]);
  expect(after.rules[2]?.bytes).toBeGreaterThan(39n);
  expect(digests(after.rules)).toEqual(first);
});

test.each([
  ["another port", "redirect to :15001", "redirect to :15002"],
  ["another mark", "0x539", "0x53a"],
  ["another element of an anonymous set", "25, 465", "25, 466"],
  ["another range of an anonymous set", "127.0.0.0/8", "127.0.0.0/9"],
  ["another verdict", "counter accept", "counter drop"],
  ["no counter", "tcp dport { 25, 465 } counter", "tcp dport { 25, 465 }"],
])("a rule with %s has another digest", async (_, from, to) => {
  using another = createNetns();
  await nft(netns, TABLE);
  await nft(another, TABLE.replace(from, to));
  const before = digests(read(netns).rules);
  const after = digests(read(another).rules);
  expect(after.filter((digest, i) => digest !== before[i])).toHaveLength(1);
});

test("the family is checked, and the netns of the call decides", async () => {
  await nft(netns, TABLE);
  using empty = createNetns();
  expect(native().nftTable(empty.fd, "inet", "ours")).toBeUndefined();
  expect(native().nftTable(netns.fd, "ip", "ours")).toBeUndefined();
  expect(() => native().nftTable(netns.fd, "inet6", "ours")).toThrow('read nf_tables family "inet6"');
});

test("readers see whole transactions while another process replaces the table", async () => {
  const one = 'table inet ours { comment "1"; chain a { counter; counter; }; chain b { accept; }; }';
  const two = 'table inet ours { comment "2"; chain a { drop; }; }';
  await nft(netns, one);
  let done = false;
  const writer = (async () => {
    for (let i = 0; i < 30; i++) await nft(netns, `delete table inet ours; ${i % 2 === 0 ? two : one}`);
    done = true;
  })();
  const seen = new Set<string>();
  while (!done) {
    const { comment, chains, rules } = read(netns);
    seen.add(`${comment} ${chains.map(({ name }) => name)} ${rules.map(({ chain }) => chain)}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
  await writer;
  expect(seen).toEqual(new Set(["1 a,b a,a,b", "2 a a"]));
});

test("a listener's socket is no netns for nftTables", () => {
  using fd = OwnedFd.adopt(native().udpSocket(netns.fd, { family: 4 }), "udp");
  expect(() => native().nftTables(fd.fd)).toThrow(expect.objectContaining({ code: "EINVAL", syscall: "setns" }));
});

describe("objects are deleted", () => {
  const chains = () => read(netns).chains.map(({ name }) => name);
  const rules = () => read(netns).rules.map(({ chain, comment }) => `${chain} ${comment}`.trim());
  const at = { family: "inet", table: "ours" } as const;

  test("chains that lead to each other, with the rules that lead there, and nothing else", async () => {
    await nft(netns, TABLE);
    await nft(netns, "add chain inet ours more; add rule inet ours more accept; add rule inet ours extra jump more");
    const jump = read(netns).rules.find(({ chain, jump }) => chain === "out" && jump === "extra");
    if (jump === undefined) throw new Error("no jump");
    const going = ["more", "extra"].map((chain) => ({ ...at, chain }));
    await native().nftDelete(netns.fd, [
      { ...at, what: "rule", chain: "out", handle: jump.handle },
      ...going.map((one) => ({ ...one, what: "rules" as const })),
      ...going.map((one) => ({ ...one, what: "chain" as const })),
    ]);
    expect(chains()).toEqual(["out"]);
    expect(rules()).toEqual(["out ztunnel's own", "out outbound", "out"]);
  });

  test("all or nothing, with the kernel's error for the first that fails", async () => {
    await nft(netns, TABLE);
    const table = { ...at, what: "table" } as const;
    await expect(native().nftDelete(netns.fd, [table, { ...table, table: "none" }])).rejects.toMatchObject({
      code: "ENOENT",
    });
    // A rule that stays leads to it.
    await expect(native().nftDelete(netns.fd, [{ ...at, what: "chain", chain: "extra" }])).rejects.toMatchObject({
      code: "EBUSY",
    });
    expect(chains()).toEqual(["out", "extra"]);
    await native().nftDelete(netns.fd, [table]);
    expect(native().nftTables(netns.fd)).toEqual([]);
  });

  test("many at once, in the netns that the fd was of when they were asked for", async () => {
    const many = Array.from({ length: 200 }, (_, i) => `t${i}`);
    await inNetns(netns, "nft", many.map((name) => `add table ip ${name}`).join("; "));
    const objects = many.map((table) => ({ what: "table" as const, family: "ip", table }));
    const fd = OwnedFd.adopt(native().netnsOpen(`/proc/self/fd/${netns.fd}`), "the same netns");
    const gone = native().nftDelete(fd.fd, objects);
    fd.close();
    await gone;
    expect(native().nftTables(netns.fd)).toEqual([]);
    await expect(native().nftDelete(netns.fd, objects)).rejects.toMatchObject({ code: "ENOENT" });
  });

  test("a name that is none is refused before anything is asked of the kernel", async () => {
    await nft(netns, TABLE);
    const wrong = [
      { what: "table", family: "inet", table: "" },
      { what: "chain", ...at, chain: "" },
      { what: "all", ...at },
    ];
    for (const object of [...wrong, { what: "table", family: "no", table: "x" }, null, { ...at }]) {
      await expect(
        async () => await native().nftDelete(netns.fd, JSON.parse(JSON.stringify([object]))),
      ).rejects.toThrow();
    }
    expect(chains()).toEqual(["out", "extra"]);
  });
});
