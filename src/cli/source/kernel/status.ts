// SPDX-License-Identifier: Apache-2.0
import { existsSync } from "node:fs";
import { release } from "node:os";
import { join } from "node:path";
import { readConfDir } from "../../../../install/conf-dir.ts";
import { PLUGIN_NAME } from "../../../core/constants.ts";
import { messageOf } from "../../../core/errors.ts";
import { type PodReport, podTitle } from "../../../core/report/pods.ts";
import type { ComponentReport, StatusReport } from "../../../core/report/status.ts";
import { counted, nodePath } from "../../../core/report/words.ts";
import type { NodeView } from "./node-view.ts";
import { isAstray, judgedPods } from "./pods.ts";

/** What of a status the node itself shows. */
export async function kernelStatus(view: NodeView): Promise<StatusReport> {
  const { report, wanted } = await judgedPods(view);
  const { pods, ...head } = report;
  const counts: Record<string, number> = {};
  for (const { mesh } of pods) counts[mesh] = (counts[mesh] ?? 0) + 1;
  return {
    ...head,
    version: null,
    kernel: release(),
    upSeconds: null,
    components: [
      { name: "cni plugin", ...(await plugin(view)) },
      { name: "kubernetes", verdict: "unknown", text: wanted?.text ?? "only the agent watches it" },
      ztunnel(pods),
      dataplane(pods),
      podsComponent(counts, (wanted?.pods.size ?? 0) > 0, pods.filter(isAstray).length),
      { name: "drift", verdict: "unknown", text: "only the agent counts what it repairs" },
    ],
    pods: counts,
    kubernetes: null,
    ztunnels: null,
    dataplane: { engine: null, fallbacks: [] },
    drift: null,
    problems: [
      ...pods.filter(({ mesh, ztunnel: serves }) => mesh === "captured" && serves === null).map(unserved),
      ...pods.filter(isAstray).map(uncaptured),
      ...pods.flatMap(astray),
    ],
  };
}

async function plugin({ config }: NodeView): Promise<Omit<ComponentReport, "name">> {
  const path = join(config.cniBinDir, PLUGIN_NAME);
  const binary = nodePath(path, config.hostRoot);
  try {
    const chained = (await readConfDir(config.cniNetDir)).files.filter(({ conf }) => conf.types.includes(PLUGIN_NAME));
    const where = chained.map(({ name }) => name).join(", ");
    if (!existsSync(path)) {
      const text = where === "" ? "not installed" : `chained in ${where}, and ${binary} is missing`;
      return { verdict: where === "" ? "warn" : "error", text };
    }
    if (where === "") return { verdict: "warn", text: `${binary}, chained in no configuration` };
    return { verdict: "ok", text: `${binary}, chained in ${where}` };
  } catch (error) {
    return { verdict: "unknown", text: messageOf(error) };
  }
}

function ztunnel(pods: readonly PodReport[]): ComponentReport {
  const captured = pods.filter(({ mesh }) => mesh === "captured");
  const served = captured.filter(({ ztunnel: serves }) => serves !== null).length;
  const verdict = captured.length === 0 ? "unknown" : served === captured.length ? "ok" : "error";
  return { name: "ztunnel", verdict, text: `listens in ${served} of ${counted(captured.length, "captured pod")}` };
}

function dataplane(pods: readonly PodReport[]): ComponentReport {
  const counts = new Map<string, number>();
  for (const { engine } of pods) if (engine !== null) counts.set(engine, (counts.get(engine) ?? 0) + 1);
  const text = [...counts].sort().map(([engine, count]) => `${engine} in ${counted(count, "pod")}`);
  return { name: "dataplane", verdict: "unknown", text: text.length === 0 ? "in no pod" : text.join(", ") };
}

function podsComponent(counts: Readonly<Record<string, number>>, asked: boolean, bare: number): ComponentReport {
  const { failing = 0, unwanted = 0 } = counts;
  const verdict = failing + unwanted + bare > 0 ? "warn" : asked ? "ok" : "unknown";
  const lost = bare > 0 ? `; ${bare} served by ztunnel and not captured` : "";
  return { name: "pods", verdict, text: `${podsSentence(counts, asked)}${lost}` };
}

function podsSentence(counts: Readonly<Record<string, number>>, asked: boolean): string {
  const { captured = 0, draining = 0, sidecar = 0, failing = 0, unwanted = 0, none = 0, unknown = 0 } = counts;
  const parts = [`${captured} captured`];
  if (draining > 0) parts.push(`${draining} draining`);
  if (sidecar > 0) parts.push(`${sidecar} with a sidecar`);
  if (failing > 0) parts.push(`${failing} not captured and should be`);
  if (unwanted > 0) parts.push(`${unwanted} captured unwanted`);
  parts.push(`${none} not`);
  if (unknown > 0) parts.push(`${unknown} unreadable`);
  return asked ? parts.join(", ") : `${parts.join(", ")}; which should be, only the agent knows`;
}

function astray(pod: PodReport): StatusReport["problems"][number][] {
  if (pod.failure === null) return [];
  const { code, message, attempts, nextTryMs } = pod.failure;
  return [{ object: podTitle(pod), code, message, attempts, nextTryMs }];
}

function uncaptured(pod: PodReport): StatusReport["problems"][number] {
  return { object: podTitle(pod), code: "NOT_CAPTURED", message: pod.detail, attempts: 0, nextTryMs: null };
}

function unserved(pod: PodReport): StatusReport["problems"][number] {
  const object = pod.name === null ? pod.uid : `${pod.namespace}/${pod.name}`;
  const message = "captured, and no ztunnel listens in it: its connections are refused";
  return { object, code: "NO_ZTUNNEL", message, attempts: 0, nextTryMs: null };
}
