// SPDX-License-Identifier: Apache-2.0
import { type MetricRow, OWN_METRICS, UPSTREAM_METRICS } from "./metric-table.ts";

const HEADER = "| Metric | Type | Labels | Meaning |\n| --- | --- | --- | --- |";

/** docs/metrics.md. */
export function metricsDocument(): string {
  return `# Metrics

Generated from \`src/telemetry/metric-table.ts\` by \`npx vitest run --project unit test/unit/telemetry/document.test.ts -u\`.

Served at \`/metrics\` on MONITORING_PORT (15014). Durations are in seconds.

## As upstream's istio-cni

${HEADER}
${UPSTREAM_METRICS.map(row).join("\n")}

## Ours

${HEADER}
${OWN_METRICS.map(row).join("\n")}

Besides these, the usual \`process_...\` and \`nodejs_...\` metrics of the process.
`;
}

function row({ name, type, labels, help }: MetricRow): string {
  return `| \`${name}\` | ${type} | ${labels.map((label) => `\`${label}\``).join(" ")} | ${help}. |`;
}
