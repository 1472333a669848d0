// SPDX-License-Identifier: Apache-2.0
import { ZTUNNEL_PORT } from "../../../core/constants.ts";
import { messageOf } from "../../../core/errors.ts";
import { canonicalIp } from "../../../core/ip.ts";
import type { NetnsHandle } from "../../../core/ports/netns.ts";
import { podsNamed } from "../../../core/report/find-pod.ts";
import type { PodReport, PodsReport } from "../../../core/report/pods.ts";
import { type Pinned, readPinned } from "../../../dataplane/ebpf/pinned.ts";
import { isZtunnels } from "../../../dataplane/proof/sockets.ts";
import { redirectionTrace } from "../../../dataplane/sidecar/trace.ts";
import { type Trace, tracesOf } from "../../../dataplane/traces.ts";
import { upstreamTraces } from "../../../dataplane/upstream/traces.ts";
import type { NativeBinding } from "../../../native/binding.ts";
import type { Resident } from "../../../netns/residents.ts";
import { portions } from "../../../netns/scan.ts";
import { type PodName, podNames } from "../../../sys/pod-logs.ts";
import type { NodeView } from "./node-view.ts";
import { askCluster, judged, type Wanted } from "./wanted.ts";

/** TCP_LISTEN */
const LISTEN = [10] as const;

/** Every pod that has a process on the node, with what is in its netns. */
export async function kernelPods(view: NodeView): Promise<PodsReport> {
  const residents = await view.residents.all();
  try {
    return { ...view.head(), pods: await rowsOf(view, residents) };
  } finally {
    for (const { netns } of residents) netns.close();
  }
}

interface Judged {
  readonly report: PodsReport;
  readonly wanted: Wanted | undefined;
}

/** The same, judged by what the cluster wants of each pod, where that can be asked. */
export async function judgedPods(view: NodeView): Promise<Judged> {
  const [report, wanted] = await Promise.all([kernelPods(view), askCluster(view)]);
  return judgedBy(report, wanted);
}

/** Of those only the ones that a person may mean by `reference`, as far as that can be told before they are looked into. */
export async function podsMeant(view: NodeView, reference: string): Promise<PodsReport> {
  const [residents, wanted] = await Promise.all([view.residents.all(), askCluster(view)]);
  try {
    const names = podNames(view.config.procDir);
    const named = residents.map((resident) => {
      const uid = resident.podUid ?? resident.containerId ?? "";
      const { namespace = null, name = null } = wanted?.pods.get(uid)?.pod ?? names.get(uid) ?? {};
      return { uid, namespace, name, netns: resident.netns.id, resident };
    });
    const meant = podsNamed(named, reference)?.map(({ resident }) => resident) ?? residents;
    return judgedBy({ ...view.head(), pods: await rowsOf(view, meant) }, wanted).report;
  } finally {
    for (const { netns } of residents) netns.close();
  }
}

function judgedBy(report: PodsReport, wanted: Wanted | undefined): Judged {
  if (wanted === undefined) return { report, wanted };
  const pods = report.pods.map((pod) => judged(pod, wanted.pods.get(pod.uid), report.takenAt));
  return { report: { ...report, pods }, wanted };
}

/** What is in the netns of these. In portions: others may wait for an answer from elsewhere meanwhile. */
export async function rowsOf({ binding, config }: NodeView, residents: readonly Resident[]): Promise<PodReport[]> {
  const names = podNames(config.procDir);
  const pinned = readPinned(binding, config.procDir);
  const portion = portions();
  const rows: PodReport[] = [];
  for (const resident of residents) {
    await portion();
    rows.push(row(binding, resident, names, pinned));
  }
  return rows;
}

function row(
  binding: NativeBinding,
  resident: Resident,
  names: ReadonlyMap<string, PodName>,
  pinned: Pinned,
): PodReport {
  const { podUid, containerId, netns } = resident;
  const name = podUid === undefined ? undefined : names.get(podUid);
  const seen = {
    uid: podUid ?? containerId ?? "",
    namespace: name?.namespace ?? null,
    name: name?.name ?? null,
    hostNetwork: false,
    phase: null,
    netns: netns.id,
    since: null,
    annotation: null,
    failure: null,
    existing: null,
  };
  try {
    const ips = binding
      .addresses(netns.fd)
      .filter(({ scope }) => scope === "global")
      .map(({ address }) => canonicalIp(address));
    const found = meshOf(binding, netns, pinned);
    // A sidecar listens at the same ports.
    const served = found.mesh !== "sidecar" && listening(binding, netns.fd);
    const why = served && found.reason === "nothing" ? { reason: ASTRAY, detail: ASTRAY_DETAIL } : {};
    return { ...seen, ips, ztunnel: served ? "listening" : null, ...found, ...why };
  } catch (error) {
    const detail = `its netns can't be read: ${messageOf(error)}`;
    return { ...seen, ips: [], ztunnel: null, mesh: "unknown", engine: null, reason: "netns-unreadable", detail };
  }
}

const ASTRAY = "served-uncaptured";
const ASTRAY_DETAIL = "nothing of ours is in its netns, and ztunnel listens in it: its traffic goes past ztunnel";

/** Belongs to the mesh, as ztunnel serves it, and nothing captures it. */
export function isAstray({ reason }: PodReport): boolean {
  return reason === ASTRAY;
}

type Found = Pick<PodReport, "mesh" | "engine" | "reason" | "detail">;

function meshOf(binding: NativeBinding, netns: NetnsHandle, pinned: Pinned): Found {
  const traces = tracesOf(binding, netns.fd, pinned);
  const active = traces.find(({ mode }) => mode !== "draining" && mode !== "retiring") ?? traces[0];
  if (active === undefined) return withoutOurs(binding, netns);
  const { engine, mode } = active;
  const draining = mode === "draining" || mode === "retiring";
  return { mesh: draining ? "draining" : "captured", engine, reason: "found", detail: sentence(traces) };
}

function withoutOurs(binding: NativeBinding, netns: NetnsHandle): Found {
  if (upstreamTraces(binding, netns.fd)?.steers === true) {
    return { mesh: "none", engine: null, reason: "upstream", detail: "captured by istio-cni's rules, not by ours" };
  }
  const redirection = redirectionTrace(binding, netns);
  if (redirection === undefined) {
    return { mesh: "none", engine: null, reason: "nothing", detail: "nothing of ours is in its netns" };
  }
  const { engine, ours } = redirection;
  const detail = `${engine}, redirected into its sidecar by ${ours ? "our rules" : "somebody else's"}`;
  return { mesh: "sidecar", engine: null, reason: "found", detail };
}

function sentence(traces: readonly Trace[]): string {
  return traces.map(({ engine, mode }) => `${engine}${mode === undefined ? "" : `, ${mode}`}`).join("; ");
}

/** ztunnel serves the pod: all three of its listeners are open in the netns, and its own: a sidecar may have the ports. */
function listening(binding: NativeBinding, netns: number): boolean {
  const sockets = binding.sockets(netns, { protocol: "tcp", states: LISTEN }).filter(isZtunnels);
  const ports = new Set(sockets.map(({ srcPort }) => srcPort));
  return [ZTUNNEL_PORT.outbound, ZTUNNEL_PORT.inboundPlaintext, ZTUNNEL_PORT.inboundHbone].every((port) =>
    ports.has(port),
  );
}
