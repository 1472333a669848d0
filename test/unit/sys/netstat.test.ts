// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { parseNetstat, reversePathDrops } from "../../../src/sys/netstat.ts";

test("names and values are matched by their place, of every group", () => {
  const counters = parseNetstat(
    "TcpExt: SyncookiesSent IPReversePathFilter\nTcpExt: 0 17\nIpExt: InNoRoutes\nIpExt: 4\n",
  );
  expect(Object.fromEntries(counters)).toEqual({ SyncookiesSent: 0, IPReversePathFilter: 17, InNoRoutes: 4 });
  expect(parseNetstat("").size).toBe(0);
});

test("this kernel counts them", () => {
  expect(reversePathDrops("/proc", "self")).toBeGreaterThanOrEqual(0);
});
