// SPDX-License-Identifier: Apache-2.0
// Golden texts: what iptables-restore is given, for every setting that changes it. A changed file is a
// changed promise; regenerate with `npx vitest run --project unit -u` and read the difference.
import { describe, expect, test } from "vitest";
import type { CaptureSpec } from "../../../src/core/ports/dataplane.ts";
import type { KernelTable } from "../../../src/dataplane/iptables/kernel.ts";
import { type Features, planCapture } from "../../../src/dataplane/iptables/plan.ts";
import { CAPTURE } from "../../../src/dataplane/iptables/ruleset.ts";
import { formatState, parseState } from "../../../src/dataplane/iptables/state.ts";
import { bodyText, removeText, replaceText } from "../../../src/dataplane/iptables/text.ts";
import type { PlanMode } from "../../../src/dataplane/netfilter/mode.ts";
import { CAPTURE_SPEC } from "../../fixtures/capture-spec.ts";
import { seeded } from "../zds/random.ts";

const full: Features = { sysctls: true, ipv6: true };
const plan = (changes: Partial<CaptureSpec> = {}, features = full, mode: PlanMode = "captured") =>
  planCapture({ ...CAPTURE_SPEC, ...changes }, features, mode, [4, 6]);

const MATRIX: readonly (readonly [string, Partial<CaptureSpec>, Features, PlanMode])[] = [
  ["default", {}, full, "captured"],
  ["no-dns", { dnsCapture: false }, full, "captured"],
  ["dns-servers", { dnsServers: ["10.96.0.10", "fd96::a", "10.96.0.10"] }, full, "captured"],
  ["ipv4-only", { ipv6: false }, full, "captured"],
  ["no-ip6tables", { ipv6: false }, { ...full, ipv6: false }, "captured"],
  ["bypass-inbound", { bypassInbound: true }, full, "captured"],
  ["reroute", { rerouteInterfaces: ["vnet0", "k6t-eth0", "vnet0"] }, full, "captured"],
  ["exclude", { excludeOutboundCidrs: ["10.1.0.0/16", "10.0.0.0/8", "fd00::/8"] }, full, "captured"],
  ["no-sysctls", {}, { ...full, sysctls: false }, "captured"],
  ["draining", {}, full, "draining"],
  ["retiring", {}, full, "retiring"],
];

test.each(MATRIX)("%s", async (name, changes, features, mode) => {
  await expect(bodyText(CAPTURE, plan(changes, features, mode))).toMatchFileSnapshot(`golden/${name}.iptables`);
});

test("a netns without IPv6 gets no word for ip6tables", () => {
  expect(planCapture(CAPTURE_SPEC, full, "captured", [4]).map(({ family }) => family)).toEqual([4, 4, 4, 4]);
});

const table: KernelTable = {
  family: 4,
  name: "nat",
  dormant: false,
  chains: ["AMBIENT_CNI_OUT", "AMBIENT_CNI_OLD", "OWN", "AMBIENT_CNI_odd -M x"],
  rules: [
    { chain: "OUTPUT", comment: "", jump: "OWN", digest: "1", packets: 0n },
    { chain: "OUTPUT", comment: "ambient-cni", jump: "AMBIENT_CNI_OUT", digest: "2", packets: 0n },
    { chain: "OUTPUT", comment: "ambient-cni", jump: "AMBIENT_CNI_OUT", digest: "changed", packets: 0n },
    { chain: "OWN", comment: "", jump: "AMBIENT_CNI_OLD", digest: "3", packets: 0n },
  ],
  plain: true,
};
const isPlain = (_: KernelTable, { digest }: { readonly digest: string }) => digest === "2";

test("what is there of ours goes by what it says, what was changed by its number, the rest stays", () => {
  expect(removeText(CAPTURE, 4, [table], isPlain).split("\n")).toEqual([
    "*nat",
    "-D OWN 1",
    "-D OUTPUT 3",
    '-D OUTPUT -m comment --comment "ambient-cni" -j AMBIENT_CNI_OUT',
    "-F AMBIENT_CNI_OUT",
    "-F AMBIENT_CNI_OLD",
    "-X AMBIENT_CNI_OUT",
    "-X AMBIENT_CNI_OLD",
    "COMMIT",
    "",
  ]);
  expect(removeText(CAPTURE, 6, [table], isPlain)).toBe("");
});

test("right jumps are left alone, and written anew where they are not right", () => {
  const right: KernelTable = {
    ...table,
    chains: ["AMBIENT_CNI_OUT", "AMBIENT_CNI_PRE"],
    rules: [
      { chain: "OUTPUT", comment: "ambient-cni", jump: "AMBIENT_CNI_OUT", digest: "2", packets: 0n },
      { chain: "PREROUTING", comment: "ambient-cni", jump: "AMBIENT_CNI_PRE", digest: "2", packets: 0n },
    ],
  };
  const jumps = (found: KernelTable) =>
    /\*nat\n[^*]*/.exec(replaceText(CAPTURE, plan(), 4, [found], "s", isPlain))?.[0] ?? "";
  expect(jumps(right)).not.toMatch(/^-[DI]/m);
  expect(jumps(table)).toMatch(/^-I OUTPUT 1 .* -j AMBIENT_CNI_OUT$/m);
});

test("the state is written into the first table, and nowhere else", () => {
  const text =
    replaceText(CAPTURE, plan(), 4, [], "hello", isPlain) + replaceText(CAPTURE, plan(), 6, [], "hello", isPlain);
  expect(text.match(/hello/g)).toHaveLength(1);
  expect(text.split("COMMIT")[0]).toContain('-A AMBIENT_CNI_STATE -m comment --comment "hello"');
});

describe("state", () => {
  const state = {
    mode: "captured",
    plan: "0123456789abcdef",
    rules: "fedcba9876543210",
    sysctls: "amr",
    made: [
      { family: 4, name: "raw" },
      { family: 6, name: "nat" },
    ],
    legs: "own",
  } as const;

  test("is read back, and short enough for the kernel", () => {
    expect(parseState(formatState(state))).toEqual(state);
    expect(parseState(formatState({ ...state, legs: "upstream" }))).toEqual({ ...state, legs: "upstream" });
    expect(formatState({ ...state, mode: "retiring", sysctls: "almrs", legs: "upstream" }).length).toBeLessThan(200);
  });
  test.each(["", "ambient-cni v2 captured", `${formatState(state)} `, formatState(state).replace("r4", "x4")])(
    "%j is none of ours",
    (comment) => {
      expect(parseState(comment)).toBeUndefined();
    },
  );
});

describe("no value of the outside becomes a line or a word of its own", () => {
  const PIECES = [
    "eth0",
    "10.0.0.1",
    "fd00::1",
    "/8",
    "\n",
    " ",
    "-A OUTPUT",
    "-M /bin/sh",
    '"',
    "'",
    "\\",
    "#",
    "COMMIT",
  ];
  const EXTRA = ["*nat", ":X - [0:0]", "!", "+", "\r", "\0", "\u2028", "%", "-j", "--modprobe=x", "\t", ";", "é"];
  const pieces = [...PIECES, ...EXTRA];
  /** Every line that a plan may have; values only where they are named here. */
  const LINE =
    /^(# ip6?tables (raw|mangle|filter|nat)|\*(raw|mangle|filter|nat)|COMMIT|:AMBIENT_CNI_[A-Z]+ - \[0:0\]|-I (PREROUTING|INPUT|FORWARD|OUTPUT) 1 -m comment --comment "ambient-cni" -j AMBIENT_CNI_[A-Z]+|-A AMBIENT_CNI_[A-Z]+ [!\w ./:,=-]*-m comment --comment "[\w./:-]+"( -j [A-Z_]+( [\w ./-]+)?)|)$/;

  test("5000 odd specs", () => {
    const random = seeded(4711);
    const word = () =>
      Array.from({ length: 1 + Math.floor(random() * 3) }, () => pieces[Math.floor(random() * pieces.length)]).join("");
    const words = () => Array.from({ length: Math.floor(random() * 3) }, word);
    let planned = 0;
    for (let i = 0; i < 5000; i++) {
      const odd: Partial<CaptureSpec> = {
        rerouteInterfaces: random() < 0.5 ? words() : [],
        excludeOutboundCidrs: random() < 0.5 ? words() : [],
        dnsServers: random() < 0.5 ? words() : undefined,
        ...(random() < 0.2 ? { probeIpv4: word() } : {}),
        ...(random() < 0.2 ? { probeIpv6: word() } : {}),
      };
      let text: string;
      try {
        text = bodyText(CAPTURE, plan(odd));
      } catch (error) {
        expect(error).toMatchObject({ code: expect.stringMatching(/^BAD_(INTERFACE_NAME|ADDRESS)$/) });
        continue;
      }
      planned += 1;
      for (const line of text.split("\n")) expect(line).toMatch(LINE);
    }
    expect(planned).toBeGreaterThan(100);
  });

  test.each(["-eth0", "-M", "--wait", "-t"])("an interface called %s is refused", (name) => {
    expect(() => plan({ rerouteInterfaces: [name] })).toThrow(JSON.stringify(name));
  });
});
