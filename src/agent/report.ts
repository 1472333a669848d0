// SPDX-License-Identifier: Apache-2.0
import { REROUTE_INTERFACES_ANNOTATION } from "../core/constants.ts";
import type { Pod } from "../core/pod.ts";
import type { DecisionRecord } from "../core/ports/journal.ts";
import type { DecisionReport, DecisionsReport } from "../core/report/decisions.ts";
import { type Head, head, type ReportVerdict } from "../core/report/document.ts";
import type { EnginesReport } from "../core/report/engines.ts";
import { type PodReport, type PodsReport, podTitle } from "../core/report/pods.ts";
import type { ComponentReport, StatusProblem, StatusReport } from "../core/report/status.ts";
import { counted } from "../core/report/words.ts";
import { census, type PodStatus } from "./census.ts";
import { driftComponent, driftReport, FIGHT, type Fight } from "./drift-report.ts";
import type { Failure } from "./enrollment.ts";
import type { Parts } from "./parts.ts";
import type { KeyedQueue } from "./queue.ts";
import type { Roster } from "./roster.ts";
import type { SidecarDrift } from "./sidecar-drift.ts";
import type { ZtunnelPulse } from "./ztunnel-pulse.ts";

/** What of the process the agent's status shows and the agent doesn't know. */
export interface ProcessFacts {
  readonly version: string;
  /** Release of the running kernel. */
  readonly kernel: string;
  readonly upSeconds: number;
  readonly plugin: Omit<ComponentReport, "name">;
}

/** What the agent believes, as documents; no look into the kernel, no call of the API. */
export class AgentReport {
  constructor(
    private readonly parts: Parts,
    private readonly roster: Roster,
    private readonly queue: KeyedQueue,
    private readonly sidecars: SidecarDrift,
    private readonly pulse: Pick<ZtunnelPulse, "stuck">,
  ) {}

  pods(): PodsReport {
    return { ...this.head(), pods: this.rows() };
  }

  /** The row of one pod; undefined: the node has none of that uid. */
  pod(uid: string): PodReport | undefined {
    const status = census(this.parts, this.roster).find((one) => one.uid === uid);
    return status === undefined ? undefined : this.row(status);
  }

  engines(): EnginesReport {
    const { dataplane } = this.parts;
    const captured = this.rows().filter(({ engine }) => engine !== null);
    return {
      ...this.head(),
      engine: this.engine(),
      engines: dataplane.tests.map(({ engine, works, reason, losses, milliseconds }) => ({
        engine,
        works,
        reason: reason ?? null,
        losses,
        milliseconds,
        pods: captured.filter((pod) => pod.engine === engine).length,
      })),
    };
  }

  status({ version, kernel, upSeconds, plugin }: ProcessFacts): StatusReport {
    const { cluster, ztunnel, dataplane, config } = this.parts;
    const rows = this.rows();
    const counts: Record<string, number> = {};
    for (const { mesh } of rows) counts[mesh] = (counts[mesh] ?? 0) + 1;
    const engine = this.engine();
    const fallbacks = dataplane.tests.filter((test) => test.works && test.engine !== engine).map((test) => test.engine);
    const connections = ztunnel.connections();
    return {
      ...this.head(),
      version,
      kernel,
      upSeconds,
      components: [
        { name: "cni plugin", ...plugin },
        this.kubernetes(),
        this.ztunnel(rows),
        config.ambientEnabled ? dataplaneComponent(engine, fallbacks) : AMBIENT_OFF.dataplane,
        podsComponent(counts),
        driftComponent(this.parts.drift, this.fights(), rows),
      ],
      pods: counts,
      kubernetes: cluster.status().map(({ resourceVersion, watchAgeSeconds, ...rest }) => ({
        ...rest,
        resourceVersion: resourceVersion ?? null,
        watchAgeSeconds: watchAgeSeconds ?? null,
      })),
      ztunnels: connections,
      ztunnelTrouble: ztunnel.trouble() ?? null,
      ztunnelStuck: this.pulse.stuck(),
      dataplane: { engine, fallbacks },
      drift: driftReport(this.parts.drift),
      problems: rows.flatMap(problemOf),
    };
  }

  /** Decisions about one pod, or about all. */
  decisions(uid: string | undefined): DecisionsReport {
    const { decisions } = this.parts;
    const pods = decisions.pods().filter((pod) => uid === undefined || pod.uid === uid);
    return {
      ...this.head(),
      pods: pods.map((pod) => ({ uid: pod.uid, pod: pod.name, decisions: decisions.of(pod.uid).map(decisionReport) })),
    };
  }

  head(): Head {
    return head({ from: "agent", note: "" }, this.parts.config.nodeName || null, new Date());
  }

  /** None before the self-tests have ended, and where ambient is off. */
  engine(): string | null {
    const { dataplane } = this.parts;
    return dataplane.tests.length === 0 ? null : dataplane.engine;
  }

  private rows(): PodReport[] {
    return census(this.parts, this.roster).map((status) => this.row(status));
  }

  private row(status: PodStatus): PodReport {
    const pod = this.parts.cluster.pod(status.uid);
    const enrollment = this.roster.get(status.uid);
    const failure = enrollment?.failure ?? this.redirectionFailure(status);
    const captured = status.state === "enrolled" || status.state === "manual";
    const began = captured ? enrollment?.enrolledAt : (failure?.since ?? pod?.createdAt);
    const unknown = captured && enrollment?.adopted === true;
    const [namespace = "", name = ""] = status.pod.split("/");
    const made = enrollment?.manual !== undefined;
    return {
      uid: status.uid,
      namespace: made ? null : namespace,
      name: made ? null : name,
      ips: status.ips,
      hostNetwork: pod?.hostNetwork ?? false,
      phase: status.phase,
      netns: status.netns ?? null,
      mesh: status.state,
      engine: status.engine ?? null,
      ztunnel: status.acked ? "acked" : null,
      since: began === undefined || unknown ? null : new Date(began).toISOString(),
      reason: status.reason,
      detail: status.detail,
      annotation: status.annotation,
      existing: status.state === "enrolled" ? status.existing : null,
      machine: pod === undefined ? null : machineOf(pod),
      failure:
        failure === undefined
          ? null
          : {
              code: failure.code,
              message: failure.message,
              since: new Date(failure.since).toISOString(),
              attempts: this.queue.attempts(status.uid),
              nextTryMs: this.queue.retryMs(status.uid) ?? null,
            },
    };
  }

  /** A sidecar pod is in no queue: nobody tries again but the look for drift. */
  private redirectionFailure({ uid, state, phase }: PodStatus): Failure | undefined {
    const seen = state === "sidecar" && phase === "Running" ? this.sidecars.of(uid) : undefined;
    if (seen === undefined || (seen.word !== "absent" && seen.word !== "differs")) return undefined;
    const code = seen.word === "absent" ? "NOT_REDIRECTED" : "REDIRECTION_DIFFERS";
    return { code, message: seen.detail, since: seen.since };
  }

  /** Pods that somebody keeps changing. */
  private fights(): readonly Fight[] {
    const now = this.parts.clock.now();
    return [...this.roster.all()]
      .map(({ name, repairs }) => ({ pod: name, times: repairs.count(now) }))
      .filter(({ times }) => times >= FIGHT);
  }

  private kubernetes(): ComponentReport {
    const all = this.parts.cluster.status();
    const unsynced = all.filter(({ synced }) => !synced).map(({ resource }) => resource);
    const blind = all.filter(({ watchAgeSeconds }) => watchAgeSeconds === undefined).map(({ resource }) => resource);
    const name = "kubernetes";
    if (unsynced.length > 0) {
      return { name, verdict: "error", text: `no complete list yet of ${unsynced.join(" and ")}` };
    }
    if (blind.length > 0) {
      return { name, verdict: "warn", text: `no watch is open on ${blind.join(" and ")}; the caches may be old` };
    }
    const pods = all.find(({ resource }) => resource === "pods");
    const sizes = all.map(({ resource, size }) => `${size} ${resource}`).join(", ");
    const relists = all.reduce((sum, one) => sum + one.relists, 0);
    const watch = `pods rv ${pods?.resourceVersion ?? "?"}, watch ${Math.round(pods?.watchAgeSeconds ?? 0)}s old`;
    return { name, verdict: "ok", text: `${sizes}; ${watch}, ${counted(relists, "relist")}` };
  }

  private ztunnel(rows: readonly PodReport[]): ComponentReport {
    if (!this.parts.config.ambientEnabled) return AMBIENT_OFF.ztunnel;
    const connected = this.connected(rows);
    const [stuck, ...more] = this.pulse.stuck();
    if (stuck === undefined) return connected;
    const others = more.length === 0 ? "" : ` (and ${counted(more.length, "more sign")})`;
    const text = `${connected.text}; it does not answer: ${stuck.detail}, for ${stuck.seconds}s${others}`;
    return { ...connected, verdict: "error", text };
  }

  private connected(rows: readonly PodReport[]): ComponentReport {
    const { ztunnel, cluster } = this.parts;
    const connections = ztunnel.connections();
    // What fails for another reason does not wait for it.
    const waiting = rows.filter((row) => isMesh(row.mesh) && row.mesh !== "failing" && row.ztunnel === null).length;
    const name = "ztunnel";
    if (!connections.some(({ ready }) => ready)) {
      const verdict: ReportVerdict = rows.some(({ mesh }) => isMesh(mesh)) ? "error" : "warn";
      const half = connections.length === 0 ? "none connected" : `${connections.length} connected, none is ready`;
      return { name, verdict, text: waiting === 0 ? half : `${half}, waited for by ${counted(waiting, "pod")}` };
    }
    const names = [...cluster.pods()].filter(({ labels }) => labels.app === "ztunnel").map((pod) => pod.name);
    const known = names.length > 0 ? ` (${names.join(", ")})` : "";
    const acked = rows.filter(({ ztunnel: told }) => told === "acked").length;
    return { name, verdict: "ok", text: `${connections.length} connected${known}, ${acked} acked, ${waiting} pending` };
  }
}

/** What such a machine sends is forwarded, and captured only where its interfaces are named. */
function machineOf({ labels, annotations }: Pod): PodReport["machine"] {
  if (!Object.keys(labels).some((label) => label.startsWith("kubevirt.io"))) return null;
  return annotations[REROUTE_INTERFACES_ANNOTATION] === undefined ? "bypassing" : "rerouted";
}

const OFF = { verdict: "ok", text: "not needed: ambient is off" } as const;
const AMBIENT_OFF = { dataplane: { name: "dataplane", ...OFF }, ztunnel: { name: "ztunnel", ...OFF } } as const;

const isMesh = (mesh: PodReport["mesh"]) => mesh === "enrolled" || mesh === "pending" || mesh === "failing";

function dataplaneComponent(engine: string | null, fallbacks: readonly string[]): ComponentReport {
  const name = "dataplane";
  if (engine === null) return { name, verdict: "error", text: "no engine yet: the self-tests have not ended" };
  const text = fallbacks.length === 0 ? "no fallback" : `fallback ${fallbacks.join(", ")}`;
  return { name, verdict: "ok", text: `${engine}, ${text}` };
}

const WORDS: readonly (readonly [PodReport["mesh"], string])[] = [
  ["enrolled", "enrolled"],
  ["failing", "failing"],
  ["pending", "pending"],
  ["draining", "draining"],
  ["unwanted", "captured unwanted"],
  ["sidecar", "sidecar"],
  ["manual", "captured by hand"],
  ["none", "not in mesh"],
];

function podsComponent(counts: Readonly<Record<string, number>>): ComponentReport {
  const parts = WORDS.filter(([mesh]) => (counts[mesh] ?? 0) > 0 || mesh === "enrolled");
  const troubled = (counts.failing ?? 0) + (counts.pending ?? 0) + (counts.unwanted ?? 0) > 0;
  return {
    name: "pods",
    verdict: troubled ? "warn" : "ok",
    text: parts.map(([mesh, word]) => `${counts[mesh] ?? 0} ${word}`).join(", "),
  };
}

function problemOf(pod: PodReport): StatusProblem[] {
  if (pod.failure === null || pod.mesh === "none") return [];
  const { code, message, attempts, nextTryMs } = pod.failure;
  return [{ object: podTitle(pod), code, message, attempts, nextTryMs }];
}

function decisionReport({ decision, at, times }: DecisionRecord): DecisionReport {
  const { what, engine, milliseconds, phases, reason, detail } = decision;
  return {
    at: new Date(at).toISOString(),
    what,
    engine: engine ?? null,
    milliseconds: milliseconds ?? null,
    phases: phases ?? {},
    reason: reason ?? "",
    detail: detail ?? "",
    times,
  };
}
