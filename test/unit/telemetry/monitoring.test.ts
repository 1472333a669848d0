// SPDX-License-Identifier: Apache-2.0
// Dashboard and alerts ask for metrics and labels that exist, and each alert has its paragraph and its test.
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { VERDICTS } from "../../../src/core/verdicts.ts";
import { METRICS } from "../../../src/telemetry/metric-table.ts";
import { ALERTS, PANELS, type Query, selectorsOf, unknownIn } from "../../support/monitoring.ts";

const KNOWN = new Map([
  ...METRICS.map(({ name, labels }) => [name, labels] as const),
  // Of the process itself.
  ["process_cpu_seconds_total", []] as const,
  ["process_resident_memory_bytes", []] as const,
]);

test.each([...ALERTS, ...PANELS])("$name asks for what there is", ({ expr }) => {
  expect(selectorsOf(expr).length).toBeGreaterThan(0);
  expect(unknownIn(expr, KNOWN)).toEqual([]);
});

test("a metric or label that does not exist is found", () => {
  expect(unknownIn('sum by (state) (rate(ambient_cni_pods{stat="x"}[5m]))', KNOWN)).toEqual(["ambient_cni_pods: stat"]);
  expect(unknownIn("ambient_cni_pod > 0", KNOWN)).toEqual(["ambient_cni_pod"]);
  expect(unknownIn("sum by (mesh) (ambient_cni_captured_pods)", KNOWN)).toEqual(["by mesh"]);
  expect(unknownIn("rate(ambient_cni_pods_bucket[5m])", KNOWN)).toEqual(["ambient_cni_pods_bucket"]);
});

test("verdicts that are asked for can be decided", () => {
  const asked = [...ALERTS, ...PANELS].flatMap(({ expr }) => [...expr.matchAll(/verdict=~"([^"]+)"/g)]);
  expect(asked).toHaveLength(2);
  for (const [, pattern = ""] of asked) {
    for (const word of pattern.split("|")) {
      // A group of the expression is tried as a whole.
      const whole = /[()]/.test(pattern) ? pattern : word;
      expect(
        VERDICTS.some((verdict) => new RegExp(`^(?:${whole})$`).test(verdict)),
        whole,
      ).toBe(true);
    }
  }
});

test("legends name labels that their query leaves", () => {
  const wrong = PANELS.filter(({ expr, legend = "" }: Query) => {
    const grouped = new Set([...expr.matchAll(/by \(([^)]*)\)/g)].flatMap(([, names = ""]) => names.split(/, */)));
    const used = [...legend.matchAll(/\{\{(\w+)\}\}/g)].map(([, label = ""]) => label);
    return used.some((label) => label !== "instance" && !grouped.has(label));
  });
  expect(wrong).toEqual([]);
});

test("each alert has its paragraph in docs/MONITORING.md, and fires in the rules' own test", () => {
  const document = readFileSync("docs/MONITORING.md", "utf8");
  const tests = readFileSync("install/monitoring/alerts.test.yaml", "utf8");
  for (const { name } of ALERTS) {
    expect(document).toContain(`\n### ${name}\n`);
    expect(tests).toContain(`{alertname="${name}"}`);
  }
});
