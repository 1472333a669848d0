// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { canonicalCidr, canonicalIp, familyOf } from "../../../src/core/ip.ts";

test.each([
  ["10.0.0.1", "10.0.0.1"],
  ["FD00:0:0:0::1", "fd00::1"],
  ["::ffff:10.0.0.1", "10.0.0.1"],
  ["fe80::1%eth0", "fe80::1"],
])("%s is %s", (text, expected) => expect(canonicalIp(text)).toBe(expected));

test.each(["", "10.1", "010.0.0.256", "1", "x", "10.0.0.1/8", "fd00::/64", "fd00:::1"])("%j is no address", (text) => {
  expect(() => canonicalIp(text)).toThrow(JSON.stringify(text));
});

test.each([
  ["10.1.2.3/8", "10.0.0.0/8"],
  ["192.0.2.1", "192.0.2.1/32"],
  ["fd00::1:2/64", "fd00::/64"],
  ["::/0", "::/0"],
  ["0.0.0.0/0", "0.0.0.0/0"],
])("%s is %s", (text, expected) => expect(canonicalCidr(text)).toBe(expected));

test.each(["10.0.0.0/33", "fd00::/129", "10.0.0.0/", "10.0.0.0/8/8", "10.0.0.0/+8", "10.0.0.0/0x8", "/8", ""])(
  "%j is no CIDR",
  (text) => expect(() => canonicalCidr(text)).toThrow(JSON.stringify(text)),
);

test("families", () => expect([familyOf("10.0.0.1"), familyOf("::1")]).toEqual([4, 6]));
