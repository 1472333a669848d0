// SPDX-License-Identifier: Apache-2.0
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import { RELIST_REASONS } from "../../../src/core/ports/cluster.ts";
import { METRICS, UPSTREAM_METRICS } from "../../../src/telemetry/metric-table.ts";
import { PromMetrics } from "../../../src/telemetry/metrics.ts";

test("every metric of the table can be written and is exposed with all its labels", async () => {
  const metrics = new PromMetrics("1.2.3");
  for (const { name, type, labels } of METRICS) {
    const values = Object.fromEntries(labels.map((label) => [label, `${label}-value`]));
    if (type === "counter") metrics.count(name, values, 2);
    else if (type === "gauge") metrics.set(name, 3, values);
    else metrics.observe(name, 0.004, values);
  }
  const text = await metrics.text();
  for (const { name, type, labels, help } of METRICS) {
    expect(text).toContain(`# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`);
    const shown = labels.map((label) => `${label}="${label}-value"`).join(",");
    const series = shown === "" ? "" : `{${shown}}`;
    if (type === "counter") expect(text).toContain(`${name}${series} 2\n`);
    else if (type === "gauge") expect(text).toContain(`${name}${series} 3\n`);
    else expect(text).toMatch(new RegExp(`${name}_bucket\\{le="0\\.005".*\\} 1\n`));
  }
  expect(text).toContain('ambient_cni_build_info{version="1.2.3",nodejs="v');
  expect(text).toContain("process_cpu_seconds_total");
  expect(text).toContain("nodejs_eventloop_lag_seconds");
  expect(metrics.contentType).toContain("text/plain");
});

test("upstream's six metrics, by name, type and labels", () => {
  expect(UPSTREAM_METRICS.map(({ name, type, labels }) => [name, type, ...labels].join(" "))).toEqual([
    "istio_cni_installs_total counter result",
    "istio_cni_install_ready gauge",
    "istio_cni_plugin_requests_total counter response_code",
    "nodeagent_reconcile_events_total counter type",
    "ztunnel_connected gauge",
    "istio_cni_repair_pods_repaired_total counter type result",
  ]);
});

test("names, labels and types that the table does not have throw", () => {
  const metrics = new PromMetrics("v");
  expect(() => metrics.count("nope_total")).toThrow("metric nope_total is not in the table");
  expect(() => metrics.count("ambient_cni_retries_total", { pod: "x" })).toThrow(
    "ambient_cni_retries_total has no label pod",
  );
  expect(() => metrics.set("ambient_cni_retries_total", 1)).toThrow("is a counter: set does not apply");
  expect(() => metrics.count("ambient_cni_queue_depth")).toThrow("is a gauge: count does not apply");
  expect(() => metrics.observe("ambient_cni_queue_depth", 1)).toThrow("is a gauge: observe does not apply");
  expect(() => metrics.set("ambient_cni_zds_ack_seconds", 1)).toThrow("is a histogram: set does not apply");
});

test("a label that was not given is there, empty", async () => {
  const metrics = new PromMetrics("v");
  metrics.set("ambient_cni_engine", 1, { engine: "nftables" });
  expect(await metrics.text()).toContain('ambient_cni_engine{engine="nftables",reason=""} 1');
});

test("what happens once is an increase: series that are known beforehand begin at 0", async () => {
  const text = await new PromMetrics("v").text();
  // The words themselves are what the code counts by: a type of each list.
  for (const reason of ["eof", "ack_timeout", "stopped", "not_root"])
    expect(text).toContain(`ambient_cni_zds_disconnects_total{reason="${reason}"} 0\n`);
  expect([...text.matchAll(/^ambient_cni_kube_relists_total\{/gm)]).toHaveLength(2 * RELIST_REASONS.length);
  expect(text).toContain('ambient_cni_drift_repairs_total{what="capture"} 0\n');
  expect(text).toContain('ambient_cni_install_repairs_total{what="plugin"} 0\n');
  expect(text).toContain('ambient_cni_kube_relists_total{resource="pods",reason="expired"} 0\n');
  expect(text).toContain('ambient_cni_engine_fallbacks_total{from="ebpf",to="nftables",kind="failed"} 0\n');
  expect(text).not.toMatch(/from="(\w+)",to="\1"/);
});

test("two instances do not share a registry", async () => {
  const [a, b] = [new PromMetrics("a"), new PromMetrics("b")];
  a.set("ambient_cni_queue_depth", 7);
  expect(await b.text()).toContain("ambient_cni_queue_depth 0\n");
});

test("every metric that the source writes is in the table, with its labels", () => {
  const root = resolve(import.meta.dirname, "../../..");
  const call = /[mM]etrics\.(count|set|observe)\(\s*"([a-z_]+)"([^;]*)/g;
  const known = new Map(METRICS.map((row) => [row.name, row]));
  const types = { count: "counter", set: "gauge", observe: "histogram" } as const;
  let calls = 0;
  for (const file of [...sources(join(root, "src")), ...sources(join(root, "install"))]) {
    for (const [, verb, name = "", rest = ""] of readFileSync(file, "utf8").matchAll(call)) {
      calls += 1;
      const row = known.get(name);
      expect(row?.type, `${file}: ${name}`).toBe(types[verb as keyof typeof types]);
      const [, literal = ""] = /\{([^{}]*)\}\s*(?:,[^,]*)?\)$/.exec(rest) ?? [];
      for (const label of literal.split(",").map((part) => part.split(":", 1)[0]?.trim() ?? "")) {
        if (/^[a-z_]+$/.test(label)) expect(row?.labels, `${file}: ${name}`).toContain(label);
      }
    }
  }
  expect(calls).toBeGreaterThan(0);
});

function sources(dir: string): string[] {
  return readdirSync(dir, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => join(dir, name));
}
