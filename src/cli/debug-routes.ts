// SPDX-License-Identifier: Apache-2.0
import type { Inspection } from "../agent/inspection.ts";
import type { AgentReport, ProcessFacts } from "../agent/report.ts";
import type { DecisionsReport } from "../core/report/decisions.ts";
import type { AgentDocumentName } from "../core/report/documents.ts";
import { type LevelsChange, type LevelsReport, levelsChangeSchema } from "../core/report/levels.ts";
import type { LinesReport, MetricsReport } from "../core/report/lines.ts";
import { podsQuestionSchema } from "../core/report/proofs.ts";
import type { SettingReport, SettingsReport } from "../core/report/settings.ts";
import type { VersionsReport } from "../core/report/versions.ts";
import type { BpfVersions } from "../native/bpf.ts";
import { type DebugRoute, posted } from "../telemetry/debug-server.ts";
import type { Log } from "../telemetry/log.ts";

export interface DebugParts {
  readonly report: AgentReport;
  readonly inspection: Inspection;
  readonly log: Log;
  /** The text of all metrics. */
  readonly metrics: () => Promise<string>;
  readonly facts: () => ProcessFacts;
  readonly settings: readonly SettingReport[];
  readonly bpf: BpfVersions;
}

/** What the agent answers, by document; none is missing. */
export function debugRoutes({
  report,
  inspection,
  log,
  metrics,
  facts,
  settings,
  bpf,
}: DebugParts): Record<AgentDocumentName, DebugRoute> {
  const levels = (): LevelsReport => ({ ...report.head(), scopes: log.levels() });
  const change = ({ reset, levels: wanted }: LevelsChange): LevelsReport => {
    if (reset) log.resetLevels();
    for (const { scope, level } of wanted) log.setLevel(scope, level);
    const names = wanted.map(({ scope, level }) => `${scope}:${level}`);
    log.scope("default").info("log levels changed", { reset, levels: names });
    return levels();
  };
  const config = (): SettingsReport => ({ ...report.head(), settings });
  const decisions = (query: URLSearchParams): DecisionsReport => report.decisions(query.get("pod") ?? undefined);
  const lines = (): LinesReport => ({ ...report.head(), lines: log.recent() });
  const metricsText = async (): Promise<MetricsReport> => ({ ...report.head(), text: await metrics() });
  const version = (): VersionsReport => {
    const { version: agent, kernel } = facts();
    const { libbpf, schema, generation } = bpf;
    const nodejs = process.version;
    return { ...report.head(), agent, kernel, nodejs, libbpf, bpfSchema: schema, bpfGeneration: generation };
  };
  return {
    status: { get: () => report.status(facts()) },
    pods: { get: () => report.pods() },
    engines: { get: () => report.engines() },
    config: { get: config },
    log: { get: levels, post: posted(levelsChangeSchema, change) },
    version: { get: version },
    decisions: { get: decisions },
    lines: { get: lines },
    metrics: { get: metricsText },
    inspect: { get: (query) => inspection.inspect(query.get("pod") ?? "") },
    verify: { get: (query) => inspection.verify(query.get("pod") ?? "") },
    "reset-existing": { post: posted(podsQuestionSchema, ({ uids }) => inspection.resetExisting(uids)) },
  };
}
