// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { counterIn, reversePathDrops } from "../../../src/sys/netstat.ts";

test("names and values are matched by their place, of every group", () => {
  const text = "TcpExt: SyncookiesSent IPReversePathFilter\nTcpExt: 0 17\nIpExt: InNoRoutes\nIpExt: 4\n";
  expect(counterIn(text, "SyncookiesSent")).toBe(0);
  expect(counterIn(text, "IPReversePathFilter")).toBe(17);
  expect(counterIn(text, "InNoRoutes")).toBe(4);
  // A value, a group, a part of a name.
  for (const none of ["17", "IpExt:", "ReversePath", ""]) expect(counterIn(text, none), none).toBeUndefined();
  expect(counterIn("", "InNoRoutes")).toBeUndefined();
});

test("this kernel counts them", () => {
  expect(reversePathDrops("/proc", "self")).toBeGreaterThanOrEqual(0);
});
