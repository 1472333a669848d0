// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import type { Sample } from "../../bench/datapath/measure.ts";
import { plot } from "../../bench/datapath/plot.ts";
import { asText, type Result, replaceSection } from "../../bench/datapath/report.ts";
import { goals, type Round, summarize } from "../../bench/datapath/summary.ts";
import type { VariantName } from "../../bench/datapath/variants.ts";

const sample = (connections: number): Sample => ({ connections, bulk: 4, p50: 40, p99: 90, cpu: 200, ownCpu: 190 });

/** The machine halves its speed in each round; ebpf stays near 0.98 of none but in one round. */
const ROUNDS: Round[] = [
  [1000, 980, 700],
  [500, 490, 350],
  [250, 200, 175],
].map(([none = 0, ebpf = 0, upstream = 0]) => ({
  direction: "outbound",
  samples: new Map<VariantName, readonly Sample[]>([
    ["none", [sample(none), sample(none)]],
    ["ebpf", [sample(ebpf - 10), sample(ebpf + 10)]],
    ["upstream", [sample(upstream), sample(upstream)]],
  ]),
}));

const summaries = summarize(ROUNDS, ["none", "ebpf", "upstream"]);

const RESULT: Result = {
  ...{ family: 4, rounds: 3, machine: "Linux <here> & now", iptables: "nft", cpus: "one", otherWork: 0.021 },
  ...{ summaries, goals: goals(summaries), absent: [{ name: "iptables", reason: "not built" }], repeated: [] },
};

test("a ratio is the median of the turns' ratios, a value the median of the rounds", () => {
  const row = summaries.find(({ variant, metric }) => variant === "ebpf" && metric === "connections");
  expect(row).toMatchObject({ median: 490, min: 200, max: 980 });
  // 0.97 0.99, 0.96 1, 0.76 0.84
  expect(row?.toNone).toBeCloseTo(0.965);
  expect(row?.toUpstream).toBeCloseTo((480 / 350 + 970 / 700) / 2);
});

test("goals are met, not met, or not measured", () => {
  const verdicts = Object.fromEntries(goals(summaries).map(({ text, seen, met }) => [text, [seen, met]]));
  expect(verdicts["ebpf, outbound new connections: at least 0.97 times no redirection"]).toEqual([
    expect.closeTo(0.965),
    false,
  ]);
  expect(verdicts["ebpf, outbound new connections: at least 1.15 times upstream's rules"]).toEqual([
    expect.closeTo(1.3786, 3),
    true,
  ]);
  expect(verdicts["ebpf, outbound bulk throughput: at least 1.6 times upstream's rules"]).toEqual([1, false]);
  expect(verdicts["ebpf, inbound new connections: at least 0.97 times no redirection"]).toEqual([undefined, false]);
});

test("the text says what is absent and which goals were not measured", () => {
  const text = asText(RESULT);
  expect(text).toContain("; 2 % of the machine's CPU time went into other work");
  expect(text).toContain("iptables is absent: not built");
  expect(text).toContain("outbound bulk throughput: at least 1.6 times upstream's rules: 1.000, not met");
  expect(text).toContain("ebpf, inbound new connections: at least 0.97 times no redirection: not measured");
});

test("a plot has a bar for each variant and metric, and no markup of others", () => {
  const svg = plot(RESULT);
  expect(svg.match(/<rect /g)).toHaveLength(3 * 5);
  expect(svg).toContain("Linux &lt;here> &amp; now");
});

test("only the section between the markers changes, as often as one likes", () => {
  const before = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n";
  const after = replaceSection(before, "x", "new");
  expect(after).toBe("a\n<!-- begin x -->\n\nnew\n\n<!-- end x -->\nb\n");
  expect(replaceSection(after, "x", "new")).toBe(after);
  expect(() => replaceSection("nothing", "x", "new")).toThrow('no lines "<!-- begin x -->"');
});
