// SPDX-License-Identifier: Apache-2.0
import { Option } from "commander";
import { findPod } from "../../core/report/find-pod.ts";
import type { PodReport, PodsReport } from "../../core/report/pods.ts";
import { counted } from "../../core/report/words.ts";
import { addCommand, type Program } from "../command.ts";
import { EXIT } from "../exit.ts";
import { isTable } from "../globals.ts";
import { sourceLine } from "../render/headline.ts";
import { type Column, table } from "../render/table.ts";
import { age } from "../render/text.ts";

interface PodsOptions {
  readonly namespace?: string;
  readonly failing?: boolean;
  readonly enrolled?: boolean;
  readonly all?: boolean;
  readonly sort: keyof typeof ORDER;
}

export function addPods(program: Program): void {
  addCommand<PodsOptions>(
    program,
    {
      usage: "pods [pod]",
      summary: "every pod of the node: in the mesh or not, and why",
      examples: [
        "ambient-cni pods -n shop",
        "ambient-cni pods --failing -o wide     # with the whole message",
        "ambient-cni pods 10.66.0.2             # by address, uid, netns or the beginning of a name",
      ],
    },
    (command) =>
      command
        .option("-n, --namespace <name>", "only pods of this namespace")
        .option("--failing", "only pods that are not captured and should be, or the other way round")
        .option("--enrolled", "only pods that are captured")
        .option("--all", "also pods with the node's own network")
        .addOption(new Option("--sort <key>", "order").choices(Object.keys(ORDER)).default("name")),
    async (session, options, [reference]) => {
      const source = await session.source();
      const report = await source.read("pods");
      const pods = select(reference === undefined ? report.pods : [named(report.pods, reference, options)], {
        ...options,
        // Who names a pod means it, whatever network it has.
        all: options.all === true || reference !== undefined,
      });
      const shown = { ...report, pods };
      await session.print(shown, (wide) => podsText(shown, wide));
      // Beside the table, whose lines scripts count.
      if (pods.length === 0 && isTable(session.globals.format)) {
        session.env.stderr.write(`none of ${counted(report.pods.length, "pod")} of this node\n`);
      }
      if (source.unreachable?.trouble === "broken") return EXIT.unreachable;
      return pods.some(({ mesh }) => mesh === "failing" || mesh === "unwanted") ? EXIT.problem : EXIT.ok;
    },
  );
}

/** With --namespace only its pods are meant: the same name in another one is another pod. */
function named(pods: readonly PodReport[], reference: string, { namespace }: PodsOptions): PodReport {
  return findPod(namespace === undefined ? pods : pods.filter((pod) => pod.namespace === namespace), reference, {
    within: namespace,
  });
}

const title = (pod: PodReport) => `${pod.namespace ?? ""}\u0000${pod.name ?? ""}\u0000${pod.uid}`;

const ORDER = {
  name: title,
  state: ({ mesh }: PodReport) => mesh,
  /** The youngest first, as the one that is looked for. */
  age: ({ since }: PodReport) => String(1e15 - (since === null ? 0 : Date.parse(since))).padStart(16, "0"),
  ip: ({ ips }: PodReport) => (ips[0] ?? "").replace(/\d+/g, (digits) => digits.padStart(3, "0")),
};

const TROUBLED: readonly PodReport["mesh"][] = ["failing", "pending", "unwanted"];

/** Pods that the filters leave, in order. */
export function select(pods: readonly PodReport[], options: PodsOptions): readonly PodReport[] {
  const { namespace, failing, enrolled, all, sort } = options;
  const kept = pods.filter(
    (pod) =>
      (namespace === undefined || pod.namespace === namespace) &&
      (all || !pod.hostNetwork) &&
      (!failing || TROUBLED.includes(pod.mesh)) &&
      (!enrolled || pod.mesh === "enrolled" || pod.mesh === "captured"),
  );
  const key = ORDER[sort];
  const before = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);
  return [...kept].sort((a, b) => before(key(a), key(b)) || before(title(a), title(b)));
}

export function podsText(report: PodsReport, wide: boolean): string {
  const columns: readonly Column<PodReport>[] = [
    { title: "NAMESPACE", of: ({ namespace }) => namespace ?? "-" },
    { title: "POD", of: ({ name, uid }) => name ?? uid },
    { title: "IP", of: ({ ips }) => (wide ? ips.join(",") : ips[0]) || "-" },
    { title: "NETNS", of: ({ netns }) => netns?.split(":")[1] ?? "-" },
    { title: "MESH", of: ({ mesh }) => (mesh === "none" ? "no" : mesh) },
    { title: "DATAPLANE", of: ({ engine }) => engine ?? "-" },
    { title: "ZTUNNEL", of: ({ ztunnel }) => ztunnel ?? "-" },
    { title: "SINCE", of: ({ since }) => age(since, report.takenAt) },
    { title: "UID", of: ({ uid }) => uid, wide: true },
    { title: "PHASE", of: ({ phase }) => phase ?? "-", wide: true },
    { title: "OLDER", of: ({ existing }) => (existing === null ? "-" : String(existing)), wide: true },
    { title: "ANNOTATION", of: ({ annotation }) => annotation ?? "-", wide: true },
    { title: "REASON", of: (pod) => reasonText(pod, wide) },
  ];
  return sourceLine(report) + table(columns, report.pods, wide);
}

/** Why it is not (wholly) in the mesh; nothing to say about one that is. */
function reasonText({ mesh, reason, detail, existing, failure }: PodReport, wide: boolean): string {
  if (failure !== null && mesh !== "none") {
    const times = failure.attempts > 1 ? ` (${failure.attempts}x)` : "";
    return `${failure.code}${times}${wide ? `: ${failure.message}` : ""}`;
  }
  if (mesh === "enrolled" && (existing ?? 0) > 0) {
    return `${counted(existing ?? 0, "connection")} older than its capture, outside the mesh until closed`;
  }
  if (mesh === "enrolled") return wide ? detail : "";
  return detail === "" ? reason : detail;
}
