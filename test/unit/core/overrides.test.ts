// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { AgentError } from "../../../src/core/errors.ts";
import { captureOverrides } from "../../../src/core/overrides.ts";

const config = {
  dnsCapture: true,
  excludeOutboundCidrs: ["10.0.0.0/8"],
  podExcludeOutboundCidrs: false,
  podEngineAnnotation: false,
};
const allowed = { ...config, podExcludeOutboundCidrs: true, podEngineAnnotation: false };
const of = (annotations: Record<string, string>, c = config) => captureOverrides({ annotations }, c);
const DNS = "ambient.istio.io/dns-capture";
const BYPASS = "ambient.istio.io/bypass-inbound-capture";
const IFACES = "istio.io/reroute-virtual-interfaces";
const CIDRS = "ambient-cni.io/exclude-outbound-cidrs";

test("no annotation: the node's settings", () => {
  expect(of({})).toEqual({
    dnsCapture: true,
    bypassInbound: false,
    rerouteInterfaces: [],
    engine: undefined,
    excludeOutboundCidrs: ["10.0.0.0/8"],
    warnings: [],
  });
});

test.each([
  ["true", true],
  ["T", true],
  ["1", true],
  ["False", false],
  ["0", false],
])("booleans are Go's: %s", (text, expected) => {
  expect(of({ [DNS]: text }).dnsCapture).toBe(expected);
  expect(of({ [DNS]: text }, { ...config, dnsCapture: false }).dnsCapture).toBe(expected);
  expect(of({ [BYPASS]: text }).bypassInbound).toBe(expected);
});

test.each(["", "yes", "TrUe", " true", "on"])(
  "a boolean Go would not parse (%j) counts as absent, with a warning",
  (text) => {
    const got = of({ [DNS]: text, [BYPASS]: text });
    expect([got.dnsCapture, got.bypassInbound]).toEqual([true, false]);
    expect(got.warnings).toEqual([
      expect.stringContaining(`${DNS}=${JSON.stringify(text)}`),
      expect.stringContaining(BYPASS),
    ]);
  },
);

test("interface names: trimmed, empties dropped, each once", () => {
  expect(of({ [IFACES]: " tap0,,eth0.100 , tap0,a-b_c,123456789012345," }).rerouteInterfaces).toEqual([
    "tap0",
    "eth0.100",
    "a-b_c",
    "123456789012345",
  ]);
  expect(of({ [IFACES]: "" }).rerouteInterfaces).toEqual([]);
});

test.each([
  "1234567890123456",
  "a/b",
  "a:1",
  "a b",
  "a\nb",
  'eth0" accept; drop',
  "eth0;flush ruleset",
  "-j ACCEPT",
  "*",
  "tap+",
  ".",
  "..",
  "ethé",
  "\u0000",
])("an interface name that is none (%j) is one clear error", (name) => {
  const error = (() => {
    try {
      return of({ [IFACES]: `tap0,${name}` });
    } catch (thrown) {
      return thrown;
    }
  })();
  expect(error).toBeInstanceOf(AgentError);
  expect(error).toMatchObject({ code: "ANNOTATION_INVALID" });
  expect((error as AgentError).message).toContain(`annotation ${IFACES}: ${JSON.stringify(name.trim())}`);
});

test("CIDRs of a pod are heeded only where the node allows it, and never silently dropped", () => {
  const annotations = { [CIDRS]: "192.0.2.7/24, fd00::1,10.0.0.0/8" };
  expect(of(annotations, allowed)).toMatchObject({
    excludeOutboundCidrs: ["10.0.0.0/8", "192.0.2.0/24", "fd00::1/128"],
    warnings: [],
  });
  expect(of(annotations)).toMatchObject({
    excludeOutboundCidrs: ["10.0.0.0/8"],
    warnings: [expect.stringContaining(CIDRS)],
  });
  // Where they are not heeded, what they say does not matter.
  expect(of({ [CIDRS]: "garbage" }).excludeOutboundCidrs).toEqual(["10.0.0.0/8"]);
});

test.each(["10.0.0.0/33", "fd00::/129", "10.0.0/8", "0x0a000000/8", "10.0.0.0/8 accept", "10.0.0.0/-1", "x"])(
  "a CIDR that is none (%j) is one clear error",
  (cidr) => {
    expect(() => of({ [CIDRS]: cidr }, allowed)).toThrow(`annotation ${CIDRS}: ${JSON.stringify(cidr)} is not a CIDR`);
  },
);

test("bounded counts", () => {
  const interfaces = Array.from({ length: 65 }, (_, i) => `tap${i}`);
  expect(of({ [IFACES]: interfaces.slice(0, 64).join() }).rerouteInterfaces).toHaveLength(64);
  expect(() => of({ [IFACES]: interfaces.join() })).toThrow(/more than 64/);
  const cidrs = Array.from({ length: 257 }, (_, i) => `10.${i >> 8}.${i & 255}.1`);
  expect(of({ [CIDRS]: cidrs.slice(0, 256).join() }, allowed).excludeOutboundCidrs).toHaveLength(257);
  expect(() => of({ [CIDRS]: cidrs.join() }, allowed)).toThrow(/more than 256/);
});

test("annotations named like members of Object are no annotations", () => {
  expect(captureOverrides({ annotations: Object.create({ [DNS]: "false" }) }, config).dnsCapture).toBe(true);
});
