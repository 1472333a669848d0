// SPDX-License-Identifier: Apache-2.0
// Whether the pods of the node are what Kubernetes says they should be, seen from the kernel.
import { REROUTE_INTERFACES_ANNOTATION } from "../../core/constants.ts";
import { familyOf } from "../../core/ip.ts";
import type { InspectReport } from "../../core/report/inspect.ts";
import { isWaiting, type PodReport, podTitle } from "../../core/report/pods.ts";
import {
  agentSettings,
  type Check,
  type CheckContext,
  type CheckResult,
  fail,
  isCaptured,
  ok,
  servedPods,
  skip,
  warn,
} from "./check.ts";

const SHOWN = 5;
/** Pods that are looked into one by one, and for how long (ms): a sample on a node with more. */
const LOOKED_AT = 60;
const LOOKED_MS = 1000;

export const POD_CHECKS: readonly Check[] = [
  {
    code: "AMB-401",
    category: "pods",
    title: "every pod of the mesh is captured",
    pre: false,
    fix: "ambient-cni inspect POD shows what is wrong with it",
    about:
      "A running pod that belongs to the mesh and is not captured talks in the clear, and nobody refuses it. It is tried again all the time; its code says why it fails.",
    run: async (context) =>
      (await agentPods(context)) ??
      judged(
        await all(context),
        (pod) => (pod.mesh === "failing" && pod.phase === "Running") || (isWaiting(pod) && pod.engine === null),
        fail,
        "all are",
        failureOf,
      ),
  },
  {
    code: "AMB-402",
    category: "pods",
    title: "no pod outside the mesh carries capture",
    pre: false,
    fix: "ambient-cni inspect POD; an agent that runs takes it away by itself",
    about:
      "What is captured and should not be still goes through ztunnel, which does not know it any more: its connections are refused.",
    run: async (context) => {
      const seen = await kernelPods(context);
      const told = await all(context);
      const outside = seen.filter(({ uid, mesh }) => {
        const pod = told.find((one) => one.uid === uid);
        return mesh === "captured" && pod !== undefined && (pod.mesh === "none" || pod.mesh === "unwanted");
      });
      return (await agentPods(context)) ?? judged(outside, () => true, fail, "none does", podTitle);
    },
  },
  {
    code: "AMB-403",
    category: "pods",
    title: "ztunnel listens in every captured pod",
    pre: false,
    fix: "check that a ztunnel pod runs on this node and mounts the directory of the ZDS socket; `ambient-cni status`",
    about: "New connections of a captured pod without ztunnel's listeners are refused: it fails closed.",
    run: async (context) => {
      const captured = (await kernelPods(context)).filter(({ mesh }) => mesh === "captured");
      return judged(captured, ({ ztunnel }) => ztunnel === null, fail, `in ${captured.length}`, podTitle);
    },
  },
  {
    code: "AMB-404",
    category: "pods",
    title: "no connection is older than its pod's capture",
    pre: false,
    fix: "ambient-cni reset-existing POD ends them, AMBIENT_CNI_EXISTING_CONNECTIONS=reset does it for every pod",
    about:
      "Connections that were open when their pod was captured go on as they were, in the clear, until they close. A long-lived one (a database pool, a stream) may do so for weeks.",
    run: async (context) =>
      (await agentPods(context)) ??
      judged(
        await all(context),
        ({ existing }) => (existing ?? 0) > 0,
        warn,
        "none is",
        (pod) => `${podTitle(pod)}: ${pod.existing}`,
      ),
  },
  {
    code: "AMB-405",
    category: "pods",
    title: "no captured pod has global IPv6 while AMBIENT_IPV6 is false",
    pre: false,
    fix: "set AMBIENT_IPV6=true (ambient.ipv6 in the chart), or take IPv6 from the pods",
    about: "With AMBIENT_IPV6=false IPv6 traffic of captured pods passes ztunnel by, in both directions, in the clear.",
    run: async (context) => {
      const settings = await agentSettings(context);
      if (settings === undefined) return skip("only the agent knows its settings");
      const ipv6 = settings.find(({ setting }) => setting === "AMBIENT_IPV6")?.value;
      if (ipv6 === "true") return ok("AMBIENT_IPV6 is true");
      const open = ({ mesh, ips }: PodReport) => isCaptured(mesh) && ips.some((ip) => familyOf(ip) === 6);
      return judged(await all(context), open, fail, "none has", podTitle);
    },
  },
  {
    code: "AMB-407",
    category: "pods",
    title: "captured pods hold no rules of others",
    pre: false,
    fix: "find out whose they are (`ambient-cni inspect POD --netns-shell -- nft list ruleset`); rules that drop or turn traffic on lo or to ports 15001, 15006, 15008 break capture",
    about:
      "Rules in a pod's network namespace that are not ours: the application's own, another tool's, or what istio-cni left. Most do no harm; where a pod has trouble, they are the first thing to look at.",
    run: async (context) => {
      const captured = (await all(context)).filter(({ mesh }) => isCaptured(mesh));
      const found: string[] = [];
      const unseen: PodReport[] = [];
      for (const pod of captured) {
        const rules = pod.netns === null ? undefined : await context.facts.foreignRules(pod.netns);
        if (rules === undefined) unseen.push(pod);
        else if (rules.length > 0) found.push(`${podTitle(pod)}: ${rules.join(", ")}`);
      }
      // The agent may hold a netns that no process of the node lives in: a virtual machine's.
      const told = await lookInto(context, unseen, ({ facts }) => {
        const rules = facts.filter(({ name }) => name === "other rules").map(({ text }) => text);
        return rules.length > 0 ? rules.join(", ") : undefined;
      });
      return ofNetns({ ...told, found: [...found, ...told.found] }, warn, "none does");
    },
  },
  {
    code: "AMB-408",
    category: "pods",
    title: "a captured virtual machine's traffic goes through ztunnel",
    pre: false,
    fix: `annotate the VM's template with ${REROUTE_INTERFACES_ANNOTATION} naming the interfaces behind which it lives (k6t-eth0)`,
    about:
      "KubeVirt's machines live behind an interface inside their pod: what they send is forwarded, not opened by a process of the pod. Without the annotation only traffic to the pod is captured.",
    run: async (context) => {
      const unknown = await agentPods(context);
      if (unknown !== undefined) return unknown;
      const captured = (await all(context)).filter(({ mesh }) => isCaptured(mesh));
      const known = captured.filter(({ machine }) => machine === "bypassing");
      // An agent of another version tells it of one pod at a time.
      const untold = captured.filter(({ machine }) => machine === undefined);
      const { found: others, sample } = await lookInto(context, untold, ({ identity }) => {
        const isMachine = Object.keys(identity?.labels ?? {}).some((label) => label.startsWith("kubevirt.io"));
        const isRerouted = identity?.annotations[REROUTE_INTERFACES_ANNOTATION] !== undefined;
        return isMachine && !isRerouted ? "a virtual machine" : undefined;
      });
      const found = [...known.map((pod) => `${podTitle(pod)}: a virtual machine`), ...others];
      return found.length === 0 ? ok(`none is without${sample}`) : warn(found.slice(0, SHOWN).join(", "));
    },
  },
  {
    code: "AMB-406",
    category: "pods",
    title: "a captured pod's traffic lands where it should",
    pre: false,
    fix: "ambient-cni verify POD shows each kind of traffic; ambient-cni inspect POD --diff what is not as it should be",
    about:
      "One captured pod is proved by real connections in its network namespace, as `ambient-cni verify` does. What it finds is seldom about one pod alone: another tool's programs or rules, a ztunnel that does not answer.",
    asks: "agent",
    run: async (context) => (await verified(context, servedPods(await all(context)))) ?? skip("no pod is captured"),
  },
  {
    code: "AMB-409",
    category: "pods",
    title: "every sidecar pod is redirected into its sidecar",
    pre: false,
    fix: "ambient-cni inspect POD; the log of the agent says what repair (REPAIR_*) has done about it",
    about:
      "A sidecar pod counts on the plugin, or on repair, for the rules that lead its traffic into its sidecar. Without them its own check (istio-validation) holds it back; where that is missing it talks past its sidecar, in the clear.",
    run: async (context) => {
      const unknown = await agentPods(context);
      if (unknown !== undefined) return unknown;
      const seen = await lookInto(context, (await all(context)).filter(hasStarted), ({ facts }) => {
        const wrong = facts.filter(({ name, ok: right }) => name === "redirection" && right === false);
        return wrong.length > 0 ? wrong.map(({ text }) => text).join(", ") : undefined;
      });
      return ofNetns(seen, fail, "each is");
    },
  },
  {
    code: "AMB-410",
    category: "pods",
    title: "a sidecar pod's traffic lands in its sidecar",
    pre: false,
    fix: "ambient-cni verify POD shows each kind of traffic; ambient-cni inspect POD whether the proxy listens",
    about:
      "One sidecar pod that runs is proved by real connections in its network namespace, as `ambient-cni verify` does: what arrives and what leaves is taken by the proxy.",
    asks: "agent",
    run: async (context) => {
      const unknown = await agentPods(context);
      if (unknown !== undefined) return unknown;
      // Nor is that anything to tell on each node of a cluster without them.
      return (await verified(context, (await all(context)).filter(hasStarted))) ?? ok("there is none");
    },
  },
];

interface LookedInto {
  /** What is wrong with pods, each with its name. */
  readonly found: readonly string[];
  /** Pods whose netns can't be reached, each with the reason. */
  readonly unreached: readonly string[];
  /** Says so where not all were looked into. */
  readonly sample: string;
}

async function lookInto(
  { inspect }: CheckContext,
  pods: readonly PodReport[],
  wrong: (report: InspectReport) => string | undefined,
): Promise<LookedInto> {
  const until = performance.now() + LOOKED_MS;
  const found: string[] = [];
  const unreached: string[] = [];
  let looked = 0;
  for (const pod of pods.slice(0, LOOKED_AT)) {
    if (performance.now() > until) break;
    const report = await inspect(pod.uid);
    const text = wrong(report);
    if (text !== undefined) found.push(`${podTitle(pod)}: ${text}`);
    // The one fact about a pod that nothing else can be told of.
    const netns = report.facts.find(({ name }) => name === "netns");
    if (netns !== undefined) unreached.push(`${podTitle(pod)}: ${netns.text}`);
    looked++;
  }
  const sample = looked < pods.length ? `, of ${looked} out of ${pods.length} that were looked into` : "";
  return { found, unreached, sample };
}

/** Of what only a pod's netns shows: a pod whose netns was not seen is no pod where all is well. */
function ofNetns(
  { found, unreached, sample }: LookedInto,
  verdict: (evidence: string) => CheckResult,
  fine: string,
): CheckResult {
  if (found.length > 0) return verdict(found.slice(0, SHOWN).join("; "));
  return unreached.length > 0 ? skip(unreached.slice(0, SHOWN).join("; ")) : ok(`${fine}${sample}`);
}

/** Before, its proxy does not listen yet. */
const hasStarted = ({ mesh, phase }: PodReport) => mesh === "sidecar" && phase === "Running";

/** Proofs of the first of these in which anything can be proved; undefined without pods. */
async function verified(context: CheckContext, pods: readonly PodReport[]): Promise<CheckResult | undefined> {
  let untold: CheckResult | undefined;
  for (const pod of pods.slice(0, SHOWN)) {
    const { proofs, problem } = await context.verify(pod.uid);
    if (problem !== null) return fail(`${podTitle(pod)}: ${problem}`);
    const failed = proofs.filter(({ result }) => result === "failed");
    if (failed.length > 0) {
      return fail(failed.map(({ row, family, evidence }) => `${row} IPv${family}: ${evidence}`).join("; "));
    }
    const proved = proofs.filter(({ result }) => result === "proved").length;
    if (proved > 0) return ok(`${podTitle(pod)}: ${proved} proofs`);
    untold ??= skip(`${podTitle(pod)}: ${proofs[0]?.evidence ?? "no proof was made"}`);
  }
  return untold;
}

const all = async ({ read }: CheckContext) => (await read("pods")).pods;

/** The kernel's view, whoever answers for the rest. */
const kernelPods = ({ kernelPods: read }: CheckContext) => read();

/** A result in place of one that only the agent can give; undefined while it answers. */
async function agentPods({ read }: CheckContext): Promise<CheckResult | undefined> {
  const { source } = await read("pods");
  return source.from === "kernel" ? skip("only the agent knows which pods belong to the mesh") : undefined;
}

function failureOf(pod: PodReport): string {
  // Why a pod that only waits is in the mesh is no reason that it waits.
  return `${podTitle(pod)}: ${pod.failure?.code ?? (pod.mesh === "pending" ? "not captured yet" : pod.reason)}`;
}

function judged(
  pods: readonly PodReport[],
  isWrong: (pod: PodReport) => boolean,
  verdict: (evidence: string) => CheckResult,
  fine: string,
  text: (pod: PodReport) => string,
): CheckResult {
  const wrong = pods.filter(isWrong);
  if (wrong.length === 0) return ok(fine);
  const more = wrong.length > SHOWN ? ` and ${wrong.length - SHOWN} more` : "";
  return verdict(`${wrong.slice(0, SHOWN).map(text).join(", ")}${more}`);
}
