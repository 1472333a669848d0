// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from "vitest";
import { decide, type NewConnection } from "../../../src/core/redirection-decision.ts";
import { type RedirectionWish, redirectionOf } from "../../support/sidecar-samples.ts";

const setting = (name: string, value: string) => ({ [`traffic.sidecar.istio.io/${name}`]: value });
const hooksOf = (wish: RedirectionWish) => redirectionOf(wish).hooks;

function shown(action: ReturnType<typeof decide>): string {
  if (action === undefined) return "left alone, by no rule";
  return action.kind === "redirect" || action.kind === "tproxy" ? `${action.kind} ${action.port}` : action.kind;
}

const LEAVES: NewConnection = { source: "10.66.0.2", destination: "192.0.2.1", port: 80, to: "eth0", uid: 0, gid: 0 };

describe("what leaves", () => {
  test.each<[string, RedirectionWish, Partial<NewConnection>, string]>([
    ["by default", {}, {}, "redirect 15001"],
    ["IPv6", {}, { source: "fd66::2", destination: "2001:db8::1" }, "redirect 15001"],
    ["the proxy's, by user", {}, { uid: 1337 }, "leave"],
    ["the proxy's, by group", {}, { gid: 1337 }, "leave"],
    ["to loopback", {}, { destination: "127.0.0.1", to: "lo" }, "leave"],
    ["the proxy's to its own pod", {}, { destination: "10.66.0.2", to: "lo", uid: 1337 }, "redirect 15006"],
    ["DNS, captured", { env: { ISTIO_META_DNS_CAPTURE: "1" } }, { port: 53 }, "redirect 15053"],
    ["DNS, not captured", {}, { port: 53 }, "redirect 15001"],
    ["an excluded port", { annotations: setting("excludeOutboundPorts", "80") }, {}, "leave"],
    ["an excluded network", { annotations: setting("excludeOutboundIPRanges", "192.0.2.0/24") }, {}, "leave"],
    [
      "no included network",
      { annotations: setting("includeOutboundIPRanges", "10.0.0.0/8") },
      {},
      "left alone, by no rule",
    ],
    [
      "an included port",
      { annotations: { ...setting("includeOutboundIPRanges", ""), ...setting("includeOutboundPorts", "80") } },
      {},
      "redirect 15001",
    ],
    ["by an excluded interface", { annotations: setting("excludeInterfaces", "eth0") }, {}, "leave"],
    ["of an excluded group", { groups: { include: "*", exclude: [7] } }, { gid: 7 }, "leave"],
    ["of no included group", { groups: { include: [7], exclude: [] } }, {}, "leave"],
  ])("%s", (_, wish, connection, expected) => {
    expect(shown(decide(hooksOf(wish)["nat-output"], { ...LEAVES, ...connection }))).toBe(expected);
  });
});

const ARRIVES: NewConnection = { source: "192.0.2.1", destination: "10.66.0.2", port: 8080, from: "eth0" };

describe("what arrives", () => {
  test.each<[string, RedirectionWish, Partial<NewConnection>, string]>([
    ["by default", {}, {}, "redirect 15006"],
    ["health of the sidecar", {}, { port: 15021 }, "leave"],
    ["the tunnel", {}, { port: 15008 }, "leave"],
    [
      "a port that is not included",
      { annotations: setting("includeInboundPorts", "80") },
      {},
      "left alone, by no rule",
    ],
    [
      "from a virtual machine",
      { annotations: { "istio.io/reroute-virtual-interfaces": "eth0" } },
      {},
      "redirect 15001",
    ],
  ])("%s", (_, wish, connection, expected) => {
    expect(shown(decide(hooksOf(wish)["nat-prerouting"], { ...ARRIVES, ...connection }))).toBe(expected);
  });

  test("transparently, also where a packet may be established or invalid", () => {
    const annotations = { "sidecar.istio.io/interceptionMode": "TPROXY" };
    const hooks = hooksOf({ annotations, env: { INVALID_DROP: "true" } });
    expect(shown(decide(hooks["mangle-prerouting"], ARRIVES))).toBe("tproxy 15006");
    expect(shown(decide(hooks["nat-prerouting"], ARRIVES))).toBe("left alone, by no rule");
  });
});
