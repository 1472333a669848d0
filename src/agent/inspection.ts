// SPDX-License-Identifier: Apache-2.0
import type { Eligibility } from "../core/eligibility.ts";
import { AgentError, codeOf, messageOf } from "../core/errors.ts";
import type { Pod } from "../core/pod.ts";
import { podKey } from "../core/pod.ts";
import type { CaptureSpec, KernelFact } from "../core/ports/dataplane.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { Prover } from "../core/ports/proof.ts";
import type { InspectReport } from "../core/report/inspect.ts";
import type { ProofsReport, ResetsReport } from "../core/report/proofs.ts";
import { captureSpec, eligibilityOf } from "./desire.ts";
import { manualEligibility } from "./manual-pod.ts";
import type { Parts } from "./parts.ts";
import { withinNetns } from "./reach.ts";
import type { AgentReport } from "./report.ts";
import type { Roster } from "./roster.ts";
import type { Sidecars } from "./sidecars.ts";

const SHOWN_DECISIONS = 20;

interface Reached {
  readonly pod: Pod;
  readonly netns: NetnsHandle;
}

interface Captured extends Reached {
  readonly spec: CaptureSpec;
}

/** Answers about single pods, from their kernel state at the time of the question. */
export class Inspection {
  constructor(
    private readonly parts: Parts,
    private readonly roster: Roster,
    private readonly report: AgentReport,
    private readonly sidecars: Sidecars,
    private readonly prover: Prover,
  ) {}

  /** @throws AgentError POD_NOT_FOUND; what the kernel says when it can't be read. */
  async inspect(uid: string): Promise<InspectReport> {
    const { cluster } = this.parts;
    const pod = this.podOf(uid);
    const row = this.report.pod(uid);
    if (row === undefined) throw notFound(uid);
    const eligibility = this.eligibilityOf(pod);
    const spec = eligibility.verdict === "ambient" ? this.specOf(pod) : undefined;
    const sidecar = eligibility.verdict === "sidecar" ? this.sidecars.inspect(pod) : undefined;
    const served = this.roster.get(uid)?.served ?? true;
    let unreached: KernelFact = { name: "netns", ok: pod.hostNetwork ? null : false, text: unreachedText(pod) };
    const seen = await withinNetns(this.parts, this.roster, pod, (netns) => {
      const { facts, counters } = this.parts.dataplane.examine(netns, spec);
      return {
        facts: [...(sidecar?.facts(netns) ?? []), ...facts.map(served ? (fact) => fact : unserved)],
        counters,
        existing: spec === undefined ? null : this.parts.existing.count(netns, spec),
      };
    }).catch((error: unknown) => {
      if (codeOf(error) !== "PROC_UNREADABLE") throw error;
      unreached = { name: "netns", ok: null, text: messageOf(error) };
      return undefined;
    });
    return {
      ...this.report.head(),
      pod: row,
      identity:
        this.roster.get(uid)?.manual !== undefined
          ? null
          : {
              serviceAccount: pod.serviceAccount,
              labels: pod.labels,
              annotations: pod.annotations,
              namespaceLabels: cluster.namespace(pod.namespace)?.labels ?? null,
            },
      eligibility,
      desired: spec === undefined ? (sidecar?.desired ?? {}) : desiredOf(spec),
      facts: seen?.facts ?? [unreached],
      counters: seen?.counters ?? {},
      existing: seen?.existing ?? null,
      decisions: this.report
        .decisions(uid)
        .pods.flatMap(({ decisions }) => decisions)
        .slice(-SHOWN_DECISIONS),
    };
  }

  /** Real connections in the pod's netns. A pod that can't be proved has a problem instead of proofs. */
  async verify(uid: string): Promise<ProofsReport> {
    const { pod, value, problem } = await this.reached(
      uid,
      ({ netns, spec }) => this.prover.prove(netns, spec),
      ({ pod: one, netns }) => this.sidecars.prove(one, netns),
    );
    return { ...this.report.head(), uid, pod, proofs: value ?? [], problem };
  }

  /** Resets connections that are older than each pod's capture. */
  async resetExisting(uids: readonly string[]): Promise<ResetsReport> {
    const { existing, metrics, logger } = this.parts;
    const pods = [];
    for (const uid of uids) {
      const { pod, value, problem } = await this.reached(uid, ({ netns, spec }) => existing.reset(netns, spec));
      const reset = value ?? 0;
      if (reset > 0) {
        metrics.count("ambient_cni_existing_connections_reset_total", {}, reset);
        logger.info("connections older than the capture are reset, as asked", { pod, connections: reset });
      }
      pods.push({ uid, pod, reset, problem });
    }
    return { ...this.report.head(), pods };
  }

  /** Runs `act` on a pod that is captured, or the other one on a sidecar pod, and says why where it can't. */
  private async reached<T>(
    uid: string,
    act: (reached: Captured) => T | Promise<T>,
    redirected?: (reached: Reached) => T | Promise<T>,
  ): Promise<{ readonly pod: string; readonly value?: T; readonly problem: string | null }> {
    let name = uid;
    try {
      const pod = this.podOf(uid);
      name = this.roster.get(uid)?.name ?? podKey(pod);
      const { verdict, detail } = this.eligibilityOf(pod);
      const sidecar = verdict === "sidecar" ? redirected : undefined;
      if (verdict !== "ambient" && sidecar === undefined) {
        return { pod: name, problem: `not in the mesh: ${detail}` };
      }
      const value = await withinNetns(this.parts, this.roster, pod, (netns) =>
        sidecar === undefined ? act({ pod, netns, spec: this.specOf(pod) }) : sidecar({ pod, netns }),
      );
      if (value === undefined) return { pod: name, problem: unreachedText(pod) };
      return { pod: name, value, problem: null };
    } catch (error) {
      return { pod: name, problem: messageOf(error) };
    }
  }

  private specOf(pod: Pod): CaptureSpec {
    const enrollment = this.roster.get(pod.uid);
    const { config, nameservers } = this.parts;
    return enrollment?.spec ?? captureSpec(config, pod, enrollment?.ips ?? pod.ips, nameservers).spec;
  }

  private eligibilityOf(pod: Pod): Eligibility {
    const manual = this.roster.get(pod.uid)?.manual;
    return manual === undefined ? eligibilityOf(this.parts.config, this.parts.cluster, pod) : manualEligibility(manual);
  }

  /** @throws AgentError POD_NOT_FOUND */
  podOf(uid: string): Pod {
    const known = this.roster.get(uid);
    const pod = known?.manual === undefined ? this.parts.cluster.pod(uid) : known.pod;
    if (pod === undefined) throw notFound(uid);
    return pod;
  }
}

/** Of a netns of which no ztunnel was to be told: that none listens is as it should be. */
function unserved(fact: KernelFact): KernelFact {
  return fact.name.startsWith("listener ") && fact.ok === false ? { ...fact, ok: null } : fact;
}

function notFound(uid: string): AgentError {
  return new AgentError(
    "POD_NOT_FOUND",
    `no pod of this node has the uid ${uid}`,
    "`ambient-cni pods --all` lists them",
  );
}

function unreachedText(pod: Pod): string {
  if (pod.hostNetwork) return "the node's own";
  return "none of its processes lives in a netns that carries one of its addresses";
}

function desiredOf(spec: CaptureSpec): Record<string, string> {
  const all: Readonly<Record<string, string | boolean | readonly string[] | undefined>> = {
    addresses: spec.ips,
    ipv6: spec.ipv6,
    engine: spec.engine,
    inbound: spec.bypassInbound ? "bypassed" : "captured",
    dns: spec.dnsCapture ? (spec.dnsServers ?? "captured") : "not captured",
    "rerouted interfaces": spec.rerouteInterfaces,
    "excluded networks": spec.excludeOutboundCidrs,
    "probe addresses": [spec.probeIpv4, spec.probeIpv6],
  };
  const desired: Record<string, string> = {};
  for (const [name, value] of Object.entries(all)) {
    const text = Array.isArray(value) ? value.join(", ") : value === undefined ? "" : String(value);
    if (text !== "") desired[name] = text;
  }
  return desired;
}
