// SPDX-License-Identifier: Apache-2.0
// Golden texts: what nft is given, for every setting that changes it. A changed file is a changed
// promise; regenerate with `npx vitest run --project unit -u` and read the difference.
import { describe, expect, test } from "vitest";
import type { CaptureSpec } from "../../../src/core/ports/dataplane.ts";
import { type Features, planCapture } from "../../../src/dataplane/nftables/plan.ts";
import { bodyText, createText, removeText, replaceText } from "../../../src/dataplane/nftables/text.ts";
import { CAPTURE_SPEC } from "../../fixtures/capture-spec.ts";

const full: Features = { sysctls: true, socketMark: true };

const text = (changes: Partial<CaptureSpec> = {}, features = full, mode: "captured" | "draining" = "captured") =>
  bodyText(planCapture({ ...CAPTURE_SPEC, ...changes }, features, mode));

const MATRIX: readonly (readonly [string, Partial<CaptureSpec>, Features, "captured" | "draining"])[] = [
  ["default", {}, full, "captured"],
  ["no-dns", { dnsCapture: false }, full, "captured"],
  ["dns-servers", { dnsServers: ["10.96.0.10", "fd96::a", "10.96.0.10"] }, full, "captured"],
  ["dns-servers-none", { dnsServers: [] }, full, "captured"],
  ["ipv4-only", { ipv6: false }, full, "captured"],
  ["bypass-inbound", { bypassInbound: true }, full, "captured"],
  ["reroute", { rerouteInterfaces: ["vnet0", "k6t-eth0", "a.b_c"] }, full, "captured"],
  ["exclude", { excludeOutboundCidrs: ["10.0.0.0/8", "10.1.0.0/16", "fd00::/8", "1.2.3.4"] }, full, "captured"],
  ["probe-is-node", { probeIpv4: "192.0.2.10", probeIpv6: "2001:db8::10" }, full, "captured"],
  ["no-socket-mark", {}, { sysctls: true, socketMark: false }, "captured"],
  ["no-sysctls", {}, { sysctls: false, socketMark: true }, "captured"],
  ["draining", {}, full, "draining"],
];

test.each(MATRIX)("%s", async (name, changes, features, mode) => {
  await expect(text(changes, features, mode)).toMatchFileSnapshot(`golden/${name}.nft`);
});

describe("equal pods share a text", () => {
  test("names, addresses and uids of the pod are not in it", () => {
    expect(text({ uid: "other", pod: "a/b", ips: ["10.66.0.9"] })).toBe(text());
  });

  test("order and repetition of lists don't matter, but for interfaces, which are tried in order", () => {
    expect(text({ dnsServers: ["10.0.0.2", "10.0.0.1", "10.0.0.2"] })).toBe(
      text({ dnsServers: ["10.0.0.1", "10.0.0.2"] }),
    );
    expect(text({ excludeOutboundCidrs: ["10.2.0.0/16", "10.0.0.7/8"] })).toBe(
      text({ excludeOutboundCidrs: ["10.0.0.0/8"] }),
    );
    expect(text({ rerouteInterfaces: ["a", "b", "a"] })).toBe(text({ rerouteInterfaces: ["a", "b"] }));
  });

  test("draining does not depend on the pod's settings", () => {
    expect(text({ bypassInbound: true, dnsCapture: false, rerouteInterfaces: ["x"] }, full, "draining")).toBe(
      text({}, full, "draining"),
    );
  });
});

test("every rule has a name of its own within its chain", () => {
  for (const [, changes, features, mode] of MATRIX) {
    for (const chain of planCapture({ ...CAPTURE_SPEC, ...changes }, features, mode).chains) {
      const names = chain.rules.map(({ name }) => name);
      expect(new Set(names).size, `${chain.name}: ${names.join(" ")}`).toBe(names.length);
    }
  }
});

test("learnt elements are written but do not change the body that is hashed", () => {
  const ruleset = planCapture(CAPTURE_SPEC, full);
  const filled = bodyText(ruleset, new Map([["marked-listeners", ["8080", "9090"]]]));
  expect(filled).toContain(
    "set marked-listeners { type inet_service; size 1024; flags dynamic; elements = { 8080, 9090 }; }",
  );
  expect(bodyText(ruleset)).not.toContain("elements");
});

test("a table is made, replaced and removed in one transaction", () => {
  expect(createText("t", "c", "\tbody\n")).toBe('create table inet t { comment "c"; }\ntable inet t {\n\tbody\n}\n');
  expect(replaceText("t", "c", "\tbody\n")).toBe(
    'add table inet t\ndelete table inet t\ntable inet t {\n\tcomment "c"\n\tbody\n}\n',
  );
  expect(removeText("t")).toBe("add table inet t\ndelete table inet t\n");
});
