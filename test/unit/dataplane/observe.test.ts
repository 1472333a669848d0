// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from "vitest";
import { textHash } from "../../../src/dataplane/netfilter/text-hash.ts";
import { namedDifferences, rulesDigest } from "../../../src/dataplane/nftables/observe.ts";
import { HOOK_NUMBER, type Ruleset } from "../../../src/dataplane/nftables/ruleset.ts";
import { formatState, parseState } from "../../../src/dataplane/nftables/state.ts";
import type { NftTable } from "../../../src/native/binding.ts";

const plan: Ruleset = {
  sets: [{ name: "learnt", text: "type inet_service" }],
  chains: [
    {
      name: "out",
      hook: { type: "nat", hook: "output", priority: -110 },
      rules: [
        { name: "a", text: "x" },
        { name: "b", text: "y" },
      ],
    },
    { name: "side", hook: undefined, rules: [{ name: "c", text: "z" }] },
  ],
};

/** The table as a kernel shows it, after `change`. */
function table(
  change: (rules: NftTable["rules"][number][], chains: NftTable["chains"][number][]) => void = () => {},
): NftTable {
  const chains = [
    { name: "out", type: "nat", hook: HOOK_NUMBER.output, priority: -110, policy: "accept" },
    { name: "side", type: "", hook: -1, priority: 0, policy: "" },
  ];
  const rules = [
    ["out", "a"],
    ["out", "b"],
    ["side", "c"],
  ].map(([chain = "", comment = ""], i) => ({
    chain,
    comment,
    jump: "",
    handle: BigInt(i),
    digest: `${chain}-${comment}`,
    packets: 0n,
    bytes: 0n,
  }));
  change(rules, chains);
  return { comment: "", dormant: false, chains, rules, sets: ["learnt", "__set0"] };
}

describe("differences are named", () => {
  test("none", () => {
    expect(namedDifferences(plan, table(), table())).toEqual([]);
  });
  test("a missing rule", () => {
    expect(
      namedDifferences(
        plan,
        table((rules) => rules.splice(1, 1)),
        undefined,
      ),
    ).toEqual(["rule b of chain out is missing"]);
  });
  test("an emptied chain", () => {
    expect(
      namedDifferences(
        plan,
        table((rules) => rules.splice(0, 2)),
        undefined,
      ),
    ).toEqual(["chain out is empty"]);
  });
  test("a foreign rule, its text cut", () => {
    const foreign = table((rules) => rules.push({ ...rules[0], comment: "x".repeat(100) } as (typeof rules)[number]));
    expect(namedDifferences(plan, foreign, undefined)).toEqual([
      `chain out has a rule that is not ours: "${"x".repeat(64)}"`,
    ]);
  });
  test("another order", () => {
    expect(
      namedDifferences(
        plan,
        table((rules) => rules.splice(0, 2, ...rules.slice(0, 2).reverse())),
        undefined,
      ),
    ).toEqual(["the rules of chain out are out of order"]);
  });
  test("a repeated rule", () => {
    expect(
      namedDifferences(
        plan,
        table((rules) => rules.splice(1, 0, ...rules.slice(0, 1))),
        undefined,
      ),
    ).toEqual(["the rules of chain out are out of order"]);
  });
  test("a changed rule, where a reference is known", () => {
    const changed = table((rules) => rules.splice(1, 1, { ...rules[1], digest: "other" } as (typeof rules)[number]));
    expect(namedDifferences(plan, changed, undefined)).toEqual([]);
    expect(namedDifferences(plan, changed, table())).toEqual(["rule b of chain out was changed"]);
    expect(rulesDigest(changed)).not.toBe(rulesDigest(table()));
  });
  test("a chain that is gone, moved, or new", () => {
    const moved = table((_, chains) => {
      chains.splice(
        0,
        2,
        { name: "out", type: "nat", hook: HOOK_NUMBER.output, priority: 5, policy: "accept" },
        { name: "new", type: "", hook: -1, priority: 0, policy: "" },
      );
    });
    expect(namedDifferences(plan, moved, undefined)).toEqual([
      "chain out hangs on hook 3 with priority 5",
      "chain side is missing",
      'chain "new" is not ours',
    ]);
  });
  test("a table out of force, a chain that drops", () => {
    const dropping = table((_, chains) =>
      chains.splice(1, 1, { ...chains[1], policy: "drop" } as (typeof chains)[number]),
    );
    expect(namedDifferences(plan, { ...dropping, dormant: true }, undefined)).toEqual([
      "the table is dormant: none of its rules is in force",
      "chain side drops what no rule decides",
    ]);
    expect(rulesDigest(dropping)).not.toBe(rulesDigest(table()));
  });
  test("a missing set", () => {
    expect(namedDifferences(plan, { ...table(), sets: [] }, undefined)).toEqual(["set learnt is missing"]);
  });
});

describe("the digest", () => {
  test("heeds order within a chain, hooks and priorities, but not counters and handles", () => {
    const reference = rulesDigest(table());
    expect(rulesDigest(table((rules) => rules.reverse()))).not.toBe(reference);
    expect(rulesDigest(table((_, chains) => chains.reverse()))).toBe(reference);
    expect(
      rulesDigest(
        table((rules) => rules.splice(0, 3, ...rules.map((rule) => ({ ...rule, packets: 9n, handle: 99n })))),
      ),
    ).toBe(reference);
  });
});

describe("the table's comment", () => {
  const state = { mode: "captured", plan: textHash("a"), rules: textHash("b"), sysctls: "arsm", legs: "own" } as const;
  test("is read back, and fits", () => {
    expect(parseState(formatState(state))).toEqual(state);
    const migrating = { ...state, mode: "retiring", sysctls: "almrs", legs: "upstream" } as const;
    expect(parseState(formatState(migrating))).toEqual(migrating);
    expect(formatState(migrating).length).toBeLessThan(128);
    expect(parseState(formatState({ ...state, mode: "draining", sysctls: "" }))).toEqual({
      ...state,
      mode: "draining",
      sysctls: "",
    });
    expect(formatState(state).length).toBeLessThan(128);
  });
  test.each(["", "ambient-cni", formatState(state).replace("v1", "v2"), `${formatState(state)} more`, "x".repeat(128)])(
    "%j is not ours",
    (comment) => {
      expect(parseState(comment)).toBeUndefined();
    },
  );
});
