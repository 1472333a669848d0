// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from "vitest";
import { AgentError } from "../../../src/core/errors.ts";
import type { SidecarProxy } from "../../../src/core/pod.ts";
import { sidecarSettings } from "../../../src/sidecar/settings.ts";

const TRAFFIC = "traffic.sidecar.istio.io";
const of = (annotations: Record<string, string> = {}, proxy: Partial<SidecarProxy> = {}) =>
  sidecarSettings({ annotations, proxy: { uid: undefined, gid: undefined, role: undefined, env: {}, ...proxy } });

test("nothing said: upstream's defaults", () => {
  const defaults = {
    mode: "REDIRECT",
    uid: 1337,
    gid: 1337,
    includeOutboundCidrs: "*",
    excludeOutboundCidrs: [],
    includeInboundPorts: "*",
    excludeInboundPorts: [15020, 15021, 15090],
    includeOutboundPorts: [],
    excludeOutboundPorts: [15020],
    excludeInterfaces: [],
    rerouteInterfaces: [],
    dnsCapture: false,
    dualStack: false,
    dropInvalid: false,
    warnings: [],
  };
  expect(of()).toEqual(defaults);
  expect(sidecarSettings({ annotations: {}, proxy: undefined })).toEqual(defaults);
});

describe("a value that is right", () => {
  test.each<[annotation: string, value: string, seen: object]>([
    ["sidecar.istio.io/interceptionMode", "REDIRECT", { mode: "REDIRECT" }],
    ["sidecar.istio.io/interceptionMode", "TPROXY", { mode: "TPROXY" }],
    [`${TRAFFIC}/includeOutboundIPRanges`, "*", { includeOutboundCidrs: "*" }],
    [`${TRAFFIC}/includeOutboundIPRanges`, "", { includeOutboundCidrs: [] }],
    [
      `${TRAFFIC}/includeOutboundIPRanges`,
      "10.1.2.3/8, FD00::1/8,10.0.0.0/8",
      { includeOutboundCidrs: ["10.0.0.0/8", "fd00::/8"] },
    ],
    [`${TRAFFIC}/excludeOutboundIPRanges`, "192.0.2.1/32", { excludeOutboundCidrs: ["192.0.2.1/32"] }],
    [`${TRAFFIC}/excludeOutboundIPRanges`, "", { excludeOutboundCidrs: [] }],
    [`${TRAFFIC}/includeInboundPorts`, "*", { includeInboundPorts: "*" }],
    [`${TRAFFIC}/includeInboundPorts`, "", { includeInboundPorts: [] }],
    [`${TRAFFIC}/includeInboundPorts`, "80, 8080,80", { includeInboundPorts: [80, 8080] }],
    [`${TRAFFIC}/excludeInboundPorts`, "", { excludeInboundPorts: [15020, 15021, 15090] }],
    [`${TRAFFIC}/excludeInboundPorts`, "15090,22", { excludeInboundPorts: [15090, 22, 15020, 15021] }],
    [`${TRAFFIC}/includeOutboundPorts`, "0,65535", { includeOutboundPorts: [0, 65535] }],
    [`${TRAFFIC}/excludeOutboundPorts`, "3306", { excludeOutboundPorts: [3306] }],
    [`${TRAFFIC}/excludeOutboundPorts`, " ", { excludeOutboundPorts: [] }],
    [`${TRAFFIC}/excludeInterfaces`, "net1, eth0.100,", { excludeInterfaces: ["net1", "eth0.100"] }],
    [`${TRAFFIC}/kubevirtInterfaces`, "k6t-eth0", { rerouteInterfaces: ["k6t-eth0"] }],
    ["istio.io/reroute-virtual-interfaces", "tap0,tap1", { rerouteInterfaces: ["tap0", "tap1"] }],
  ])("%s=%j", (annotation, value, seen) => {
    expect(of({ [annotation]: value })).toMatchObject({ ...seen, warnings: [] });
  });
});

test("the newer name of rerouted interfaces wins, also when it is empty", () => {
  const both = { "istio.io/reroute-virtual-interfaces": "", [`${TRAFFIC}/kubevirtInterfaces`]: "net1" };
  expect(of(both).rerouteInterfaces).toEqual([]);
});

describe("a value that is wrong stops the pod, and the message names annotation, value and what is allowed", () => {
  const PORTS = "each item a port from 0 to 65535";
  const CIDRS = "each item a CIDR";
  const NAMES = "each item the name of an interface";
  test.each<[annotation: string, allowed: string, values: readonly string[]]>([
    ["sidecar.istio.io/interceptionMode", "one of REDIRECT, TPROXY", ["", "NONE", "tproxy", "REDIRECT ", "*"]],
    [
      `${TRAFFIC}/includeOutboundIPRanges`,
      `* for all, or a list separated by commas, ${CIDRS}`,
      ["10.0.0.1", "10.0.0.0/33", "x", "*,10.0.0.0/8", "10.0.0.0/8,", "10.0.0.0/8;accept", "::ffff:10.0.0.0/104"],
    ],
    [`${TRAFFIC}/excludeOutboundIPRanges`, CIDRS, ["*", "fd00::/129", "0x0a000000/8", "10.0.0.0/-1"]],
    [`${TRAFFIC}/includeInboundPorts`, `* for all, or a list separated by commas, ${PORTS}`, ["65536", "*,80", "80,"]],
    [`${TRAFFIC}/excludeInboundPorts`, PORTS, ["*", "80:90", "-1", "+80", "0x50", "8 0", "http", "1e3", "80,,81"]],
    [`${TRAFFIC}/includeOutboundPorts`, PORTS, ["*", "443 -j ACCEPT"]],
    [`${TRAFFIC}/excludeOutboundPorts`, PORTS, ["*", "443 } accept; tcp dport { 1"]],
    [`${TRAFFIC}/excludeInterfaces`, NAMES, ["1234567890123456", 'eth0" accept', "-j", "*", "..", "a b", "eth0;x"]],
    [`${TRAFFIC}/kubevirtInterfaces`, NAMES, ["tap+"]],
    ["istio.io/reroute-virtual-interfaces", NAMES, ["ethé", "a/b"]],
  ])("%s", (annotation, allowed, values) => {
    for (const value of values) {
      const error = thrown(() => of({ [annotation]: value }));
      expect(error, value).toMatchObject({ code: "ANNOTATION_INVALID" });
      expect(error.message).toContain(`annotation ${annotation}=${JSON.stringify(value)}`);
      expect(error.remedy).toContain(allowed);
    }
  });

  test("of a list the wrong item is named, and a long value is cut", () => {
    const name = `${TRAFFIC}/excludeOutboundPorts`;
    expect(thrown(() => of({ [name]: "80,http,81" })).message).toBe(
      `annotation ${name}="80,http,81" is not allowed: "http" is wrong`,
    );
    expect(thrown(() => of({ [name]: "x".repeat(100_000) })).message.length).toBeLessThan(400);
  });

  test.each([
    [`${TRAFFIC}/excludeOutboundPorts`, (i: number) => String(i), 1024],
    [`${TRAFFIC}/excludeOutboundIPRanges`, (i: number) => `10.${i >> 8}.${i & 255}.0/24`, 4096],
    [`${TRAFFIC}/excludeInterfaces`, (i: number) => `net${i}`, 64],
  ])("%s is bounded", (annotation, item, limit) => {
    const items = Array.from({ length: limit + 1 }, (_, i) => item(i));
    expect(() => of({ [annotation]: items.slice(1).join() })).not.toThrow();
    expect(thrown(() => of({ [annotation]: items.join() })).remedy).toBe(`allowed is at most ${limit} items`);
  });
});

test("user and group of the proxy are its container's; 0 says nothing, as upstream", () => {
  expect(of({}, { uid: 1000660001, gid: 7 })).toMatchObject({ uid: 1000660001, gid: 7 });
  expect(of({}, { uid: 0, gid: 1337 })).toMatchObject({ uid: 1337, gid: 1337 });
});

test("switches are Go's booleans; anything else is off, with a warning, as upstream", () => {
  const env = { ISTIO_META_DNS_CAPTURE: "T", ISTIO_DUAL_STACK: "1", INVALID_DROP: "true" };
  expect(of({}, { env })).toMatchObject({ dnsCapture: true, dualStack: true, dropInvalid: true, warnings: [] });
  const odd = of({}, { env: { ISTIO_META_DNS_CAPTURE: "yes", ISTIO_DUAL_STACK: "0" } });
  expect(odd).toMatchObject({ dnsCapture: false, dualStack: false });
  expect(odd.warnings).toEqual([
    'ISTIO_META_DNS_CAPTURE="yes" of istio-proxy is neither true nor false; it is ignored',
  ]);
});

test("annotations named like members of Object are no annotations", () => {
  const annotations = Object.create({ "sidecar.istio.io/interceptionMode": "TPROXY" });
  expect(sidecarSettings({ annotations, proxy: undefined }).mode).toBe("REDIRECT");
});

function thrown(body: () => unknown): AgentError {
  try {
    body();
  } catch (error) {
    if (error instanceof AgentError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}
