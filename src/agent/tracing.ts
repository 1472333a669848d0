// SPDX-License-Identifier: Apache-2.0
import { messageOf } from "../core/errors.ts";
import type { FlowRecord } from "../core/flow/line.ts";
import { FLOW_WORDS } from "../core/flow/words.ts";
import { familyOf } from "../core/ip.ts";
import { podKey } from "../core/pod.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { TraceDestination, Traced, Tracer } from "../core/ports/trace.ts";
import type { HopReport, TraceReport } from "../core/report/trace.ts";
import type { VerdictCounts } from "../core/verdicts.ts";
import { eligibilityOf } from "./desire.ts";
import type { Inspection } from "./inspection.ts";
import type { Monitor } from "./monitor.ts";
import type { Parts } from "./parts.ts";
import { withinNetns } from "./reach.ts";
import type { AgentReport } from "./report.ts";
import type { Roster } from "./roster.ts";

/** For the datapath's word about the connection, after its end. */
const WORD_MS = 300;

const VERDICT = {
  ztunnel: "ztunnel",
  pod: "passed",
  outside: "passed",
  refused: "refused",
  nobody: "unanswered",
} as const satisfies Record<Traced["answered"], TraceReport["verdict"]>;

/** Makes one connection in a pod and tells what became of it: what the datapath decided, and what can be seen. */
export class Tracing {
  constructor(
    private readonly parts: Parts,
    private readonly roster: Roster,
    private readonly report: AgentReport,
    private readonly inspection: Inspection,
    private readonly monitor: Monitor,
    private readonly tracer: Tracer,
  ) {}

  /** @throws AgentError POD_NOT_FOUND. A pod in which no connection can be made has a problem instead of hops. */
  async trace(uid: string, to: TraceDestination): Promise<TraceReport> {
    const pod = this.inspection.podOf(uid);
    const { address, port } = to;
    const destination = address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
    const head = { ...this.report.head(), uid, pod: podKey(pod), destination };
    const nothing = (problem: string): TraceReport => ({ ...head, hops: [], verdict: null, problem });
    if (pod.hostNetwork) return nothing("it has the node's network, where nothing is captured");
    try {
      const traced = await withinNetns(this.parts, this.roster, pod, async (netns) => {
        const ip = pod.ips.find((one) => familyOf(one) === familyOf(address));
        if (ip === undefined) return `the pod has no IPv${familyOf(address)} address`;
        const obstacle = this.tracer.obstacle(netns, ip);
        if (obstacle !== undefined) return `${obstacle}, and a connection made there would prove nothing`;
        return await this.#traced(netns, uid, to);
      });
      if (traced === undefined)
        return nothing("none of its processes lives in a netns that carries one of its addresses");
      if (typeof traced === "string") return nothing(traced);
      return { ...head, ...traced, problem: null };
    } catch (error) {
      return nothing(messageOf(error));
    }
  }

  async #traced(netns: NetnsHandle, uid: string, to: TraceDestination): Promise<Pick<TraceReport, "hops" | "verdict">> {
    const counted = this.#counted(uid, netns);
    const flows = new HeardFlows(this.monitor, uid, to);
    const began = performance.now();
    let traced: Traced;
    let word: FlowRecord | undefined;
    try {
      traced = await this.tracer.trace(netns, to);
      word = this.#engineOf(uid) === "ebpf" ? await flows.heard(WORD_MS) : undefined;
    } finally {
      flows.stop();
    }
    const hops: HopReport[] = traced.hops.map(({ at, ...hop }) => ({ ...hop, milliseconds: at - began }));
    const text = word !== undefined ? wordText(word) : this.#reasonText(uid, counted, this.#counted(uid, netns));
    // The decision is made within connect(), before anything else can be seen.
    const decision: HopReport = {
      milliseconds: 0,
      hop: "decision",
      result: text === undefined ? "unseen" : "ok",
      text: text ?? UNSEEN,
    };
    return { hops: [decision, ...hops], verdict: VERDICT[traced.answered] };
  }

  #engineOf(uid: string): string | undefined {
    return this.roster.get(uid)?.engine;
  }

  #counted(uid: string, netns: NetnsHandle): VerdictCounts {
    const engine = this.roster.get(uid)?.engine;
    return engine === undefined || engine === "ebpf" ? {} : this.parts.dataplane.verdicts(netns, engine);
  }

  /** Without a word of the programs: why nothing captures the pod, or what its rules have counted meanwhile. */
  #reasonText(uid: string, before: VerdictCounts, after: VerdictCounts): string | undefined {
    const engine = this.#engineOf(uid);
    if (engine === undefined) {
      const { detail } = eligibilityOf(this.parts.config, this.parts.cluster, this.inspection.podOf(uid));
      return `the pod is not captured: ${detail}`;
    }
    const more = Object.entries(after).filter(
      ([word, count]) => (count ?? 0) > (before[word as keyof VerdictCounts] ?? 0),
    );
    if (more.length === 0) return undefined;
    const texts = more.map(([word]) => FLOW_WORDS[word]?.text ?? word);
    return `the rules of ${engine} have counted meanwhile: ${texts.join("; ")}`;
  }
}

const UNSEEN = "nothing that decides about connections was heard of it";

function wordText({ verdict, reason }: FlowRecord): string {
  const known = Object.values(FLOW_WORDS).find((word) => word.reason === reason && word.direction === "out");
  return `${verdict} (${reason}): ${known?.text ?? reason}`;
}

/** What the datapath tells of connections of one pod to one destination, while it is listened to. */
class HeardFlows {
  readonly stop: () => void;
  #word: FlowRecord | undefined;
  #wake: () => void = () => undefined;

  constructor(monitor: Monitor, uid: string, { address, port }: TraceDestination) {
    this.stop = monitor.hear((flows) => {
      const ours = flows.find(
        (flow) =>
          flow.uid === uid &&
          flow.direction === "out" &&
          flow.protocol === "tcp" &&
          flow.destination === address &&
          flow.destinationPort === port &&
          flow.reason !== "by-ztunnel",
      );
      if (ours === undefined) return;
      this.#word ??= ours;
      this.#wake();
    });
  }

  /** The first one, which may come some time after the connection. */
  async heard(ms: number): Promise<FlowRecord | undefined> {
    if (this.#word !== undefined) return this.#word;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    return this.#word;
  }
}
