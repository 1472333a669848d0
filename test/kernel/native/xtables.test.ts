// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { native } from "../../../src/native/load.ts";
import { createNetns, type HeldNetns } from "../../../src/native/netns.ts";
import { guardFds } from "../../support/fds.ts";
import { inNetns } from "../../support/netns-lab.ts";

guardFds();

let netns: HeldNetns;
beforeEach(() => {
  netns = createNetns();
});
afterEach(() => netns.close());

const sh = (where: HeldNetns, script: string) => inNetns(where, "sh", "-ec", script);

describe.each([
  [4, "iptables-legacy", "ip_tables_names", "192.0.2.0/24"],
  [6, "ip6tables-legacy", "ip6_tables_names", "2001:db8::/32"],
] as const)("IPv%i", (family, program, names, network) => {
  const table = (where: HeldNetns, name: string) =>
    native()
      .xtables(where.fd, family)
      .find((one) => one.name === name);

  test("a netns without tables has none, and gets none by being asked", async () => {
    expect(native().xtables(netns.fd, family)).toEqual([]);
    expect(await sh(netns, `cat /proc/net/${names}`)).toBe("");
  });

  test("chains, policies, jumps and comments, as iptables wrote them", async () => {
    await sh(
      netns,
      `${program} -t nat -N A; ${program} -t nat -N B
       ${program} -t nat -A OUTPUT -s ${network} -m comment --comment "to a" -j A
       ${program} -t nat -A OUTPUT -j RETURN
       ${program} -t nat -A A -p tcp -j REDIRECT --to-ports 15001
       ${program} -t nat -A A -m comment --comment only
       ${program} -t nat -A A -g B
       ${program} -t filter -P FORWARD DROP`,
    );
    const nat = table(netns, "nat");
    expect(nat?.rules.map(({ chain, jump, comment }) => [chain, jump, comment])).toEqual([
      ["OUTPUT", "A", "to a"],
      ["OUTPUT", "", ""],
      ["A", "", ""],
      ["A", "", "only"],
      ["A", "B", ""],
    ]);
    expect(nat?.chains.filter(({ policy }) => policy === "").map(({ name }) => name)).toEqual(["A", "B"]);
    expect(table(netns, "filter")?.chains).toEqual([
      { name: "INPUT", policy: "accept" },
      { name: "FORWARD", policy: "drop" },
      { name: "OUTPUT", policy: "accept" },
    ]);
  });

  test("a digest tells a rule from another, wherever it stands and whatever was counted", async () => {
    using other = createNetns();
    const rules = [
      "-A OUT -m mark --mark 0x539/0xfff -m addrtype ! --src-type LOCAL -j CT --notrack",
      "-A OUT -m mark --mark 0x539/0xff -m addrtype ! --src-type LOCAL -j CT --notrack",
      "-A OUT -m mark --mark 0x539/0xfff -j CT --zone-orig 1",
      "-A OUT -p tcp -m tcp --dport 53 -j RETURN",
      "-A OUT -p tcp -m tcp --dport 54 -j RETURN",
      "-A OUT -p tcp -m tcp --dport 54 -j DROP",
      `-A OUT -d ${network} -j MID`,
      `-A OUT -d ${network} -g MID`,
      `-A OUT ! -d ${network} -j MID`,
      "-A OUT -o lo",
      "-A OUT -o lo+",
    ];
    const made = (program_: string, before: string) =>
      `${program_} -t raw -N MID; ${before}\n${program_} -t raw -N OUT\n` +
      `${rules.map((rule) => `${program_} -t raw ${rule}`).join("\n")}\n${program_} -t raw -I OUTPUT -j OUT`;
    await sh(netns, made(program, ""));
    await sh(other, made(program, `${program} -t raw -A PREROUTING -d ${network} -j MID`));
    const digests = (where: HeldNetns) =>
      table(where, "raw")
        ?.rules.filter(({ chain }) => chain === "OUT")
        .map(({ digest }) => digest);
    expect(digests(netns)).toEqual(digests(other));
    expect(new Set(digests(netns)).size).toBe(rules.length);
    const before = digests(netns);
    const address = family === 4 ? "127.0.0.1" : "::1";
    const refused = native().tcpConnect(netns.fd, { family, address, port: 9, timeout: 1000 });
    await expect(refused).rejects.toMatchObject({ code: "ECONNREFUSED" });
    expect(await sh(netns, `${program} -t raw -vxnL OUTPUT`)).not.toMatch(/\n +0 +0 OUT /);
    expect(digests(netns)).toEqual(before);
  });

  test("a table that changes all the time is read whole every time", async () => {
    await sh(netns, `${program} -t nat -N A`);
    const writing = sh(netns, `for i in $(seq 40); do ${program} -t nat -A A -j RETURN; done`);
    let seen = 0;
    while (seen < 40) {
      const rules = table(netns, "nat")?.rules.length ?? 0;
      expect(rules).toBeGreaterThanOrEqual(seen);
      seen = rules;
      await new Promise((resolve) => setImmediate(resolve));
    }
    await writing;
  });
});
