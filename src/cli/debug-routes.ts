// SPDX-License-Identifier: Apache-2.0
import type { Agent } from "../agent/agent.ts";
import type { Inspection } from "../agent/inspection.ts";
import { manualEligibility } from "../agent/manual-pod.ts";
import { HISTORY_MAX, type Monitor } from "../agent/monitor.ts";
import type { PlanQuestion } from "../agent/planner.ts";
import type { AgentReport, ProcessFacts } from "../agent/report.ts";
import type { Tracing } from "../agent/tracing.ts";
import { AgentError } from "../core/errors.ts";
import { parseDestination } from "../core/flow/destination.ts";
import { ENGINE_NAMES } from "../core/ports/dataplane.ts";
import type { ManualRequest } from "../core/ports/manual.ts";
import type { DecisionsReport } from "../core/report/decisions.ts";
import type { AgentDocumentName } from "../core/report/documents.ts";
import { type LevelsChange, type LevelsReport, levelsChangeSchema } from "../core/report/levels.ts";
import type { LinesReport, MetricsReport } from "../core/report/lines.ts";
import {
  type EnrollReport,
  type ManualRelease,
  manualReleaseSchema,
  manualRequestSchema,
  type UnenrollReport,
} from "../core/report/manual.ts";
import type { PlanReport } from "../core/report/plan.ts";
import { podsQuestionSchema } from "../core/report/proofs.ts";
import type { ReadinessReport } from "../core/report/readiness.ts";
import type { SettingReport, SettingsReport } from "../core/report/settings.ts";
import type { VersionsReport } from "../core/report/versions.ts";
import type { BpfVersions } from "../native/bpf.ts";
import { type DebugRoute, posted } from "../telemetry/debug-server.ts";
import type { Log } from "../telemetry/log.ts";

export interface DebugParts {
  readonly report: AgentReport;
  readonly inspection: Inspection;
  readonly agent: Pick<Agent, "planner" | "manual">;
  readonly monitor: Monitor;
  readonly tracing: Tracing;
  readonly log: Log;
  /** The text of all metrics. */
  readonly metrics: () => Promise<string>;
  /** What keeps the agent from being ready. */
  readonly missing: () => readonly string[];
  readonly facts: () => ProcessFacts;
  readonly settings: readonly SettingReport[];
  /** Where directories of the settings lie on the node. */
  readonly places: () => NonNullable<SettingsReport["onNode"]>;
  readonly bpf: BpfVersions;
}

/** A capture is verified by real connections, in ms. */
const MANUAL_MS = 20_000;

function planQuestion(query: URLSearchParams): PlanQuestion {
  const engine = query.get("engine") ?? undefined;
  const known = ENGINE_NAMES.find((name) => name === engine);
  if (engine !== undefined && known === undefined) {
    throw new AgentError(
      "BAD_REQUEST",
      `engine: ${JSON.stringify(engine.slice(0, 40))} is none of ${ENGINE_NAMES.join(", ")}`,
    );
  }
  return { engine: known, anyway: query.has("anyway") };
}

/** About network namespaces that are captured by hand. */
function manualRoutes(report: AgentReport, agent: DebugParts["agent"]) {
  return {
    plan: async (request: ManualRequest): Promise<PlanReport> => {
      const { claim, netns, spec } = await agent.manual.examine(request);
      try {
        const { detail } = manualEligibility(claim);
        return agent.planner().planNetns(agent.manual.imagine(claim), netns, spec, detail);
      } finally {
        netns.close();
      }
    },
    enroll: async (request: ManualRequest): Promise<EnrollReport> => {
      const { uid } = await agent.manual.enroll(request);
      const pod = report.pods().pods.find((one) => one.uid === uid);
      if (pod === undefined) throw new AgentError("MANUAL_LOST", `${uid} was released a moment after it was captured`);
      const captured = report
        .decisions(uid)
        .pods.flatMap(({ decisions }) => decisions)
        .findLast(({ what }) => what === "captured");
      return { ...report.head(), pod, phases: captured?.phases ?? {} };
    },
    unenroll: async ({ netns, dryRun }: ManualRelease): Promise<UnenrollReport> => ({
      ...report.head(),
      ...{ netns, dryRun },
      result: await (dryRun ? agent.manual.wouldUnenroll(netns) : agent.manual.unenroll(netns)),
    }),
  };
}

/** What the agent answers, by document; none is missing. */
export function debugRoutes({
  report,
  inspection,
  agent,
  monitor,
  tracing,
  log,
  metrics,
  missing,
  facts,
  settings,
  places,
  bpf,
}: DebugParts): Record<AgentDocumentName | "monitor", DebugRoute> {
  const levels = (): LevelsReport => ({ ...report.head(), scopes: log.levels() });
  const change = ({ reset, levels: wanted }: LevelsChange): LevelsReport => {
    if (reset) log.resetLevels();
    for (const { scope, level } of wanted) log.setLevel(scope, level);
    const names = wanted.map(({ scope, level }) => `${scope}:${level}`);
    log.scope("default").info("log levels changed", { reset, levels: names });
    return levels();
  };
  const config = (): SettingsReport => ({ ...report.head(), settings, onNode: places() });
  const decisions = (query: URLSearchParams): DecisionsReport => report.decisions(query.get("pod") ?? undefined);
  const lines = (): LinesReport => ({ ...report.head(), lines: log.recent() });
  const metricsText = async (): Promise<MetricsReport> => ({ ...report.head(), text: await metrics() });
  const version = (): VersionsReport => {
    const { version: agent, kernel } = facts();
    const { libbpf, schema, generation } = bpf;
    const nodejs = process.version;
    return { ...report.head(), agent, kernel, nodejs, libbpf, bpfSchema: schema, bpfGeneration: generation };
  };
  const manual = manualRoutes(report, agent);
  const planner = agent.planner();
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
    readiness: { get: (): ReadinessReport => ({ ...report.head(), missing: missing() }) },
    plan: {
      get: (query) => planner.plan(query.get("pod") ?? "", planQuestion(query)),
      post: posted(manualRequestSchema, manual.plan),
    },
    enroll: { post: posted(manualRequestSchema, manual.enroll), deadlineMs: MANUAL_MS },
    unenroll: { post: posted(manualReleaseSchema, manual.unenroll), deadlineMs: MANUAL_MS },
    trace: {
      get: (query) => tracing.trace(query.get("pod") ?? "", parseDestination(query.get("to") ?? "")),
      deadlineMs: TRACE_MS,
    },
    monitor: { stream: (query, sink) => monitor.read(sink, lastOf(query)) },
    "reset-existing": { post: posted(podsQuestionSchema, ({ uids }) => inspection.resetExisting(uids)) },
  };
}

/** More than a connection that nobody answers takes. */
const TRACE_MS = 8000;

/** How many flows of before are asked for. @throws AgentError BAD_REQUEST */
function lastOf(query: URLSearchParams): number {
  const text = query.get("last") ?? "0";
  if (!/^\d{1,4}$/.test(text) || Number(text) > HISTORY_MAX) {
    throw new AgentError("BAD_REQUEST", `last is ${JSON.stringify(text)}, and at most ${HISTORY_MAX} are kept`);
  }
  return Number(text);
}
