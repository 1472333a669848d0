// SPDX-License-Identifier: Apache-2.0
// Without an agent, verify tries what the pod's own state says is captured, and says of the rest that it was not tried.
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { type Steering, type SteeringSigns, steeringOf, untried } from "../../../src/cli/source/kernel/steering.ts";
import type { KernelTable } from "../../../src/dataplane/iptables/kernel.ts";
import type { PinnedPod } from "../../../src/native/bpf.ts";

const NOTHING: SteeringSigns = { pod: undefined, rules: [], tables: [], routed6: false };
const table = (family: 4 | 6, chain: string, ...comments: readonly string[]): KernelTable => ({
  ...{ family, name: "nat", dormant: false, chains: [chain], plain: true },
  rules: comments.map((comment) => ({ chain, comment, jump: "", digest: "", packets: 0n })),
});
const entry = (changes: Partial<PinnedPod>): PinnedPod => ({
  ...{ ip4: "10.1.2.14", ip6: "", shadow4: "", shadow6: "", probe4: "", probe6: "" },
  ...{ ipv6: false, inbound: true, dns: false, dnsListed: false, draining: false, retiring: false, beside: false },
  ...{ sysctls: "", plan: "", cookie: 1n, counters: {}, ...changes },
});
const OURS = "AMBIENT_CNI_OUT";

test.each<[string, Partial<SteeringSigns>, Partial<Steering>]>([
  ["an entry of the eBPF engine's", { pod: entry({ ipv6: true, dns: true }) }, { ipv6: true, dns: "any" }],
  ["for IPv4 alone", { pod: entry({}) }, { ipv6: false, dns: "none", bypassInbound: false }],
  ["for the pod's nameservers", { pod: entry({ dns: true, dnsListed: true }) }, { dns: "some" }],
  ["without inbound", { pod: entry({ inbound: false }) }, { bypassInbound: true }],
  ["our table", { rules: ["mark", "dns-udp", "dns-tcp"] }, { ipv6: true, dns: "any" }],
  ["for IPv4 alone, with routing that was left", { rules: ["ipv6-off"], routed6: true }, { ipv6: false }],
  ["an empty one, with routing", { routed6: true }, { ipv6: true, dns: "none" }],
  ["of which one rule is left", { rules: ["dns-tcp"] }, { dns: "any" }],
  ["for nameservers in a set", { rules: ["dns-udp-v4"] }, { dns: "some" }],
  ["without DNS", { rules: ["dns-upstream", "outbound"] }, { ipv6: true, dns: "none" }],
  ["our chains", { tables: [table(4, OURS, "dns-udp"), table(6, OURS)] }, { ipv6: true, dns: "any" }],
  [
    "for nameservers by address",
    { tables: [table(4, OURS, "dns-udp-10.96.0.10", "dns-tcp-10.96.0.10"), table(6, OURS, "dns-udp-fd00::a")] },
    { dns: ["10.96.0.10", "fd00::a"] },
  ],
  ["somebody else's", { tables: [table(4, "THEIRS", "dns-udp"), table(6, "THEIRS")] }, { ipv6: false, dns: "none" }],
  ["nothing", {}, { ipv6: false, dns: "none", bypassInbound: false }],
])("%s", (_, signs, steering) => {
  expect(steeringOf({ ...NOTHING, ...signs })).toMatchObject(steering);
});

test.each<[string, Partial<Steering>]>([
  ["default", { ipv6: true, dns: "any" }],
  ["no-dns", { ipv6: true, dns: "none" }],
  ["dns-servers", { ipv6: true, dns: "some" }],
  ["ipv4-only", { ipv6: false, dns: "any" }],
])("by the names that the plan gives its rules: %s", (plan, steering) => {
  const text = readFileSync(new URL(`../dataplane/golden/${plan}.nft`, import.meta.url), "utf8");
  const rules = [...text.matchAll(/comment "([^"]+)"/g)].map(([, name = ""]) => name);
  expect(steeringOf({ ...NOTHING, rules })).toMatchObject(steering);
});

test("what is not tried is said", () => {
  const rows = (steering: Partial<Steering>, hasIpv6: boolean) =>
    untried({ ipv6: true, dns: "any", bypassInbound: false, ...steering }, hasIpv6).map(
      ({ row, family, result }) => `${row} IPv${family} ${result}`,
    );
  expect(rows({}, true)).toEqual([]);
  expect(rows({ dns: ["10.96.0.10"] }, true)).toEqual([]);
  expect(rows({ ipv6: false }, true)).toEqual(["outbound IPv6 skipped", "inbound IPv6 skipped"]);
  expect(rows({ ipv6: false }, false)).toEqual([]);
  for (const dns of ["none", "some"] as const) {
    expect(rows({ dns }, true)).toEqual(["dns-tcp IPv4 skipped", "dns-udp IPv4 skipped"]);
  }
});
