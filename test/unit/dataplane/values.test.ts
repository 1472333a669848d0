// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from "vitest";
import { address, addresses, cidrs, interfaceName } from "../../../src/dataplane/netfilter/values.ts";

describe("interface names", () => {
  test.each(["eth0", "k6t-eth0", "a.b_c", "A", "123456789012345", "vnet0.100"])("%s is one", (name) => {
    expect(interfaceName(name)).toBe(name);
  });
  test.each(["", ".", "..", "1234567890123456", "a b", "a;b", 'a"b', "a\nb", "a/b", "*", "a*", "é", "a{", "a\u0000"])(
    "%j is none",
    (name) => {
      expect(() => interfaceName(name)).toThrow(JSON.stringify(name));
    },
  );
});

describe("addresses", () => {
  test("are canonical and of the asked family", () => {
    expect(address("FD16:9254:7127:1337:FFFF:FFFF:FFFF:FFFF", 6)).toBe("fd16:9254:7127:1337:ffff:ffff:ffff:ffff");
    expect(() => address("10.0.0.1", 6)).toThrow('not an IPv6 address: "10.0.0.1"');
    expect(() => address("10.0.0.1; drop", 4)).toThrow("10.0.0.1; drop");
  });
  test("of a list: one family, sorted, each once", () => {
    expect(addresses(["10.0.0.2", "fd00::1", "10.0.0.1", "::ffff:10.0.0.2"], 4)).toEqual(["10.0.0.1", "10.0.0.2"]);
  });
});

describe("CIDRs: what lies inside another is left out", () => {
  test.each([
    [["10.1.0.0/16", "10.0.0.0/8", "10.1.2.3"], ["10.0.0.0/8"]],
    [
      ["10.0.0.0/9", "10.128.0.0/9"],
      ["10.0.0.0/9", "10.128.0.0/9"],
    ],
    [["0.0.0.0/0", "10.0.0.0/8"], ["0.0.0.0/0"]],
    [["10.0.0.5/24", "10.0.0.0/24"], ["10.0.0.0/24"]],
    [["255.255.255.255"], ["255.255.255.255/32"]],
  ])("%j", (input, kept) => {
    expect(cidrs(input, 4)).toEqual(kept);
  });
  test("IPv6", () => {
    expect(cidrs(["fd00::/8", "fd66::/64", "::1", "10.0.0.0/8"], 6)).toEqual(["::1/128", "fd00::/8"]);
    expect(cidrs(["::/0", "fd00::/8"], 6)).toEqual(["::/0"]);
  });
  test.each(["10.0.0.0/33", "x", "10.0.0.0/8 }", "10.0.0.0/"])("%s is refused by name", (text) => {
    expect(() => cidrs([text], 4)).toThrow(text);
  });
});
