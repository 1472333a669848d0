// SPDX-License-Identifier: Apache-2.0
// Golden texts: the rules of a sidecar pod for every setting that changes them, by both writers. A changed
// file is a changed promise; regenerate with `npx vitest run --project unit -u` and read the difference.
import { describe, expect, test } from "vitest";
import { bodyText as iptablesText } from "../../../src/dataplane/iptables/text.ts";
import { bodyText as nftablesText } from "../../../src/dataplane/nftables/text.ts";
import { iptablesRules, SIDECAR } from "../../../src/dataplane/sidecar/iptables-rules.ts";
import { nftablesRules } from "../../../src/dataplane/sidecar/nftables-rules.ts";
import { formatState, parseState } from "../../../src/dataplane/sidecar/state.ts";
import { planRedirection, redirectedFamilies } from "../../../src/sidecar/plan.ts";
import { sidecarSettings } from "../../../src/sidecar/settings.ts";
import { DUAL_STACK, type RedirectionWish, redirectionOf } from "../../support/sidecar-samples.ts";
import { seeded } from "../zds/random.ts";

const TRAFFIC = "traffic.sidecar.istio.io";
const MODE = "sidecar.istio.io/interceptionMode";
const annotated = (name: string, value: string): RedirectionWish => ({ annotations: { [name]: value } });

const MATRIX: readonly (readonly [string, RedirectionWish])[] = [
  ["default", {}],
  ["ipv4", { ips: DUAL_STACK.slice(0, 1) }],
  ["tproxy", annotated(MODE, "TPROXY")],
  ["dns", { env: { ISTIO_META_DNS_CAPTURE: "true" } }],
  ["drop-invalid", { env: { INVALID_DROP: "true" } }],
  [
    "tproxy-all",
    {
      annotations: {
        [MODE]: "TPROXY",
        [`${TRAFFIC}/includeInboundPorts`]: "80,443",
        [`${TRAFFIC}/excludeInterfaces`]: "net1,net2",
        "istio.io/reroute-virtual-interfaces": "k6t-eth0",
      },
      env: { ISTIO_META_DNS_CAPTURE: "true", INVALID_DROP: "true" },
    },
  ],
  ["owner", { uid: 1000, gid: 2000 }],
  ["include-ranges", annotated(`${TRAFFIC}/includeOutboundIPRanges`, "10.0.0.0/8,192.168.0.0/16,fd00::/8")],
  ["include-loopback", annotated(`${TRAFFIC}/includeOutboundIPRanges`, "127.0.0.0/8")],
  ["no-ranges", annotated(`${TRAFFIC}/includeOutboundIPRanges`, "")],
  ["exclude-ranges", annotated(`${TRAFFIC}/excludeOutboundIPRanges`, "10.1.0.0/16,10.2.0.0/16,fd00:1::/32")],
  ["inbound-ports", annotated(`${TRAFFIC}/includeInboundPorts`, "80,8080")],
  ["no-inbound", annotated(`${TRAFFIC}/includeInboundPorts`, "")],
  ["no-inbound-tproxy", { annotations: { [MODE]: "TPROXY", [`${TRAFFIC}/includeInboundPorts`]: "" } }],
  ["exclude-inbound-ports", annotated(`${TRAFFIC}/excludeInboundPorts`, "22,8081")],
  ["outbound-ports", annotated(`${TRAFFIC}/includeOutboundPorts`, "443,5432")],
  ["exclude-outbound-ports", annotated(`${TRAFFIC}/excludeOutboundPorts`, "3306,6379")],
  ["exclude-interfaces", annotated(`${TRAFFIC}/excludeInterfaces`, "net1,net2")],
  ["reroute", annotated("istio.io/reroute-virtual-interfaces", "net1,net2")],
  [
    "reroute-ranges",
    {
      annotations: {
        "istio.io/reroute-virtual-interfaces": "net1",
        [`${TRAFFIC}/includeOutboundIPRanges`]: "10.0.0.0/8,fd00::/8",
      },
    },
  ],
  ["groups", { groups: { include: [202, 203], exclude: [] } }],
  ["groups-except", { groups: { include: "*", exclude: [888, 889] } }],
];

describe.each(MATRIX)("%s", (name, wish) => {
  test("nftables", async () => {
    const text = nftablesText(nftablesRules(redirectionOf(wish)));
    await expect(text).toMatchFileSnapshot(`golden/sidecar/${name}.nft`);
  });
  test("iptables", async () => {
    const text = iptablesText(SIDECAR, iptablesRules(redirectionOf(wish)));
    await expect(text).toMatchFileSnapshot(`golden/sidecar/${name}.iptables`);
  });
});

test("every rule has a name of its own in its chain, and fits into a comment", () => {
  for (const [, wish] of MATRIX) {
    const { chains } = nftablesRules(redirectionOf(wish));
    const all = [...chains, ...iptablesRules(redirectionOf(wish)).flatMap((table) => table.chains)];
    for (const { name, rules } of all) {
      const names = rules.map((rule) => rule.name);
      expect([...new Set(names)], name).toEqual(names);
      for (const one of names) expect(one.length).toBeLessThan(128);
    }
  }
});

test.each([
  [["10.0.0.2"], false, [4]],
  [["fd66::2"], false, [4, 6]],
  [["10.0.0.2", "fd66::2"], false, [4]],
  [["10.0.0.2", "fd66::2"], true, [4, 6]],
  [["fd66::2", "10.0.0.2"], false, [4, 6]],
  [[], true, [4]],
])("addresses %j, dual stack %s: families %j", (ips, dualStack, families) => {
  expect(redirectedFamilies(ips, dualStack)).toEqual(families);
});

test("the state is read back, fits into a table's comment, and what is not ours is none", () => {
  const state = { plan: "0123456789abcdef", rules: "fedcba9876543210", made: [{ family: 6, name: "raw" }] } as const;
  const text = formatState(state);
  expect(parseState(text)).toEqual(state);
  expect(text.length).toBeLessThan(110);
  for (const other of ["", `${text} `, text.replace("v1", "v2"), "ambient-cni v1 captured", text.replace("r6", "x6")]) {
    expect(parseState(other)).toBeUndefined();
  }
});

describe("no value of the outside becomes a line or a word of its own", () => {
  const PIECES = [
    "eth0",
    "10.0.0.1",
    "fd00::1",
    "/8",
    "80",
    ",",
    "\n",
    " ",
    "-A OUTPUT",
    '"',
    "'",
    "\\",
    "#",
    "COMMIT",
  ];
  const EXTRA = ["*nat", "!", "+", "\r", "\0", "\u2028", "%", "-j", "{", "}", ";", "accept", "\t", "é", "*"];
  const pieces = [...PIECES, ...EXTRA];
  const NAMES = [
    ...["includeOutboundIPRanges", "excludeOutboundIPRanges", "includeInboundPorts", "excludeInboundPorts"],
    ...["includeOutboundPorts", "excludeOutboundPorts", "excludeInterfaces", "kubevirtInterfaces"],
  ].map((name) => `${TRAFFIC}/${name}`);
  const IPTABLES =
    /^(# ip6?tables (raw|mangle|filter|nat)|\*(raw|mangle|filter|nat)|COMMIT|:ISTIO_[A-Z_]+ - \[0:0\]|-I (PREROUTING|OUTPUT) 1 -m comment --comment "ambient-cni sidecar" -j ISTIO_[A-Z_]+|-A ISTIO_[A-Z_]+ [!\w ./:,=-]*-m comment --comment "[\w./:-]+" -j [A-Z_]+( [\w ./-]+)?|)$/;
  const NFT =
    /^(\tchain [a-z-]+ \{|\t\ttype \w+ hook \w+ priority -?\d+; policy accept;|\t\t[\w "!=.:/{},-]+ comment "[\w.:/-]+"|\t\}|)$/;

  test("4000 odd pods", () => {
    const random = seeded(815);
    const pick = () => pieces[Math.floor(random() * pieces.length)] ?? "";
    const word = () => Array.from({ length: 1 + Math.floor(random() * 4) }, pick).join("");
    let planned = 0;
    for (let i = 0; i < 4000; i++) {
      const annotations: Record<string, string> = {};
      for (const name of NAMES) if (random() < 0.15) annotations[name] = word();
      let settings: ReturnType<typeof sidecarSettings>;
      try {
        settings = sidecarSettings({ annotations, proxy: undefined });
      } catch (error) {
        expect(error).toMatchObject({ code: "ANNOTATION_INVALID" });
        continue;
      }
      planned += 1;
      const redirection = planRedirection(settings, DUAL_STACK);
      for (const line of iptablesText(SIDECAR, iptablesRules(redirection)).split("\n")) expect(line).toMatch(IPTABLES);
      for (const line of nftablesText(nftablesRules(redirection)).split("\n")) expect(line).toMatch(NFT);
    }
    expect(planned).toBeGreaterThan(500);
  });
});
