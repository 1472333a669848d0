// SPDX-License-Identifier: Apache-2.0
// What docs/PERFORMANCE.md shows of a run is what that run's saved output says.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { barsSvg } from "../../../scripts/docs/bars.ts";

const DOCS = fileURLToPath(new URL("../../../docs/", import.meta.url));

interface Saved {
  readonly machine: string;
  readonly costs: readonly (Readonly<
    Record<"p50" | "p90" | "max" | "prepareP50" | "releaseP50" | "total" | "forks", number>
  > & {
    readonly engine: string;
  })[];
}

const saved = JSON.parse(readFileSync(`${DOCS}performance/enroll.json`, "utf8")) as Saved;

test("the picture of enrolment is drawn from the run", async () => {
  const svg = barsSvg({
    title: "Enrolling one pod, verification included (less is better)",
    note: saved.machine,
    unit: "ms",
    series: ["p50", "p90"],
    groups: saved.costs.map(({ engine, p50, p90 }) => ({ name: engine, values: [p50, p90] })),
  });
  await expect(svg).toMatchFileSnapshot(`${DOCS}performance/enroll.svg`);
});

test("the table of enrolment has the run's numbers", () => {
  const document = readFileSync(`${DOCS}PERFORMANCE.md`, "utf8");
  for (const { engine, p50, p90, max, prepareP50, releaseP50, total, forks } of saved.costs) {
    const times = [p50, p90, max, prepareP50, releaseP50].map((value) => `${value.toFixed(2)} ms`);
    expect(document).toContain(`| ${[engine, ...times, `${total.toFixed(2)} s`, forks].join(" | ")} |`);
  }
});
