// SPDX-License-Identifier: Apache-2.0
// Which of a pod's sockets are ends of connections past ztunnel.
import { describe, expect, test } from "vitest";
import { clientPorts } from "../../../src/dataplane/ends.ts";
import { existingAmong } from "../../../src/dataplane/existing.ts";
import type { SocketInfo } from "../../../src/native/binding.ts";
import { CAPTURE_SPEC } from "../../fixtures/capture-spec.ts";

const POD = "10.0.0.2";
const REMOTE = "10.0.0.9";
const ZTUNNEL = 0x539;
const LISTENING = 10;
const CLOSE_WAIT = 8;
const FACTS = {
  spec: { ...CAPTURE_SPEC, excludeOutboundCidrs: ["10.9.0.0/16"] },
  own: new Set([POD]),
  node: new Set(["10.0.0.1"]),
};

/** `from` and `to` as address:port, IPv4 or v4-mapped. */
function socket(from: string, to: string, changes: Partial<SocketInfo> = {}): SocketInfo {
  const end = (text: string) => [text.slice(0, text.lastIndexOf(":")), Number(text.slice(text.lastIndexOf(":") + 1))];
  const [[src, srcPort], [dst, dstPort]] = [end(from), end(to)];
  return { protocol: "tcp", state: 1, mark: 0, src, srcPort, dst, dstPort, ...changes } as SocketInfo;
}

const listener = socket("::ffff:0.0.0.0:8080", "0.0.0.0:0", { state: LISTENING });
const inbound = socket(`::ffff:${POD}:8080`, `::ffff:${REMOTE}:41000`);
const outbound = socket(`${POD}:42000`, `${REMOTE}:80`);
/** Turned by netfilter: ztunnel's end of what the application at `port` opened. */
const turned = (port: number) => socket("::ffff:127.0.0.1:15001", `::ffff:${POD}:${port}`, { mark: ZTUNNEL });

describe("existingAmong", () => {
  const among = (sockets: readonly SocketInfo[], facts = FACTS) => existingAmong([listener, ...sockets], facts);
  const none = { inbound: [], outbound: [], doubtful: [] };

  test.each<[string, readonly SocketInfo[], Partial<ReturnType<typeof existingAmong>>]>([
    ["both directions", [inbound, outbound], { inbound: [inbound], outbound: [outbound] }],
    ["ztunnel's leg to the application", [inbound, socket(`${REMOTE}:41000`, `${POD}:8080`, { mark: ZTUNNEL })], {}],
    ["turned by netfilter", [outbound, turned(42000)], {}],
    ["turned by eBPF", [socket(`${POD}:42000`, "255.128.1.2:15001")], {}],
    [
      "direct, from a port that leads to ztunnel by eBPF as well",
      [outbound, socket("::ffff:255.128.1.2:15001", `::ffff:${POD}:42000`, { mark: ZTUNNEL })],
      { outbound: [outbound] },
    ],
    ["an end of ztunnel's that nobody has the other one of", [outbound, turned(50)], { doubtful: [outbound] }],
    ["half closed by its peer", [{ ...inbound, state: CLOSE_WAIT }], {}],
    ["of the node", [socket(`${POD}:8080`, "10.0.0.1:41000")], {}],
    [
      "to an excluded network, over loopback, to itself",
      [
        socket(`${POD}:42000`, "10.9.1.1:80"),
        socket("127.0.0.1:42001", "127.0.0.1:8080"),
        socket(`${POD}:42002`, `${POD}:8080`),
      ],
      {},
    ],
  ])("%s", (_, sockets, found) => {
    expect(among(sockets)).toEqual({ ...none, ...found });
  });

  test("one port, two destinations, one of them turned, also where the other's end is closing", () => {
    const other = socket(`${POD}:42000`, `${REMOTE}:81`);
    expect(among([outbound, other, turned(42000)])).toEqual({ ...none, doubtful: [outbound, other] });
    const closing = { ...other, state: CLOSE_WAIT };
    expect(among([outbound, closing, turned(42000)])).toEqual({ ...none, doubtful: [outbound] });
  });

  test("what the pod's settings leave alone", () => {
    const six = socket("fd00::2:42000", "fd00::9:80");
    expect(among([six], { ...FACTS, spec: { ...FACTS.spec, ipv6: false } })).toEqual(none);
    expect(among([six])).toEqual({ ...none, outbound: [six] });
    expect(among([inbound], { ...FACTS, spec: { ...FACTS.spec, bypassInbound: true } })).toEqual(none);
  });
});

test("clientPorts: of every client with a connection past ztunnel, whoever it is and whatever state it is in", () => {
  const sockets = [
    listener,
    inbound,
    { ...socket(`${POD}:8080`, `${REMOTE}:41001`), state: CLOSE_WAIT },
    { ...socket(`${POD}:8080`, `${REMOTE}:41002`), state: 3 },
    socket(`${POD}:8080`, "10.0.0.1:41003"),
    outbound,
    socket(`${POD}:8080`, "127.0.0.1:41004"),
    socket(`${POD}:8080`, `${POD}:41005`),
    // Through ztunnel.
    socket(`${POD}:8080`, `${REMOTE}:41006`),
    socket(`${REMOTE}:41006`, `${POD}:8080`, { mark: ZTUNNEL }),
  ];
  expect(clientPorts(sockets, new Set([POD]))).toEqual([41000, 41001, 41002, 41003]);
});
