// SPDX-License-Identifier: Apache-2.0
// What the addon does with arguments that the type checker would not have let through.
import { describe, expect, test } from "vitest";
import { native } from "../../../src/native/load.ts";

/** A value of any type, as data from outside would be. */
const wild = (json: string) => JSON.parse(json);

describe.each([
  ["netnsOpen without a path", () => native().netnsOpen(wild("null")), "path must be a string"],
  ["netnsOpen with a NUL", () => native().netnsOpen("/proc/self/ns/net\0"), "path holds a NUL byte"],
  ["netnsOpen with an endless path", () => native().netnsOpen("x".repeat(5000)), "path is longer than 4096 bytes"],
  ["close with a fraction", () => native().close(1.5), "fd must be a whole number"],
  ["close with a negative number", () => native().close(-1), "fd must be a whole number"],
  ["close with NaN", () => native().close(Number.NaN), "fd must be a whole number"],
  ["links with an undefined netns", () => native().links(wild("{}").netns), "netns must be a number"],
  ["routes with another family", () => native().routes(null, wild("5"), 254), "family must be 4 or 6, not 5"],
  ["a rule that is no object", () => native().ruleAdd(null, wild("7")), "rule must be an object"],
  [
    "a rule without a table",
    () => native().ruleAdd(null, wild('{"family":4,"priority":1}')),
    "rule.table must be a number",
  ],
  [
    "an address prefix beyond the family",
    () => native().addressAdd(null, "lo", "10.0.0.1", 33),
    "prefix must be a whole number from 0 to 32",
  ],
  [
    "a port beyond 65535",
    () => native().tcpListen(null, { family: 4, bind: { address: "127.0.0.1", port: 65536 } }),
    "options.bind.port must be a whole number from 0 to 65535",
  ],
  [
    "a flag that is no boolean",
    () => native().udpSocket(null, wild('{"family":4,"reusePort":1}')),
    "options.reusePort must be a boolean",
  ],
  ["sockets of another protocol", () => native().sockets(null, wild('{"protocol":"sctp"}')), '"tcp" or "udp"'],
  ["a watch without a callback", () => native().routeWatch(null, wild("null")), "changed must be a function"],
] as const)("%s", (_, call, text) => {
  test("is a TypeError that names the argument", () => {
    expect(call).toThrow(TypeError);
    expect(call).toThrow(text);
  });
});
