// SPDX-License-Identifier: Apache-2.0
import { setMaxListeners } from "node:events";
import { type Clock, systemClock } from "../core/clock.ts";
import type { AgentPod, DaemonSet } from "../core/daemonset.ts";
import type { Stop } from "../core/disposable.ts";
import { AgentError } from "../core/errors.ts";
import type { NodeInfo } from "../core/placement.ts";
import { type Namespace, type Pod, podKey } from "../core/pod.ts";
import type {
  Cluster,
  CollectionStatus,
  NamespaceChange,
  PodChange,
  PodEvent,
  PodRef,
  RedirectionState,
} from "../core/ports/cluster.ts";
import type { PlannedChange } from "../core/ports/plan.ts";
import type { Logger, Metrics } from "../core/ports/telemetry.ts";
import { Annotator, annotationPatch } from "./annotate.ts";
import { KubeClient } from "./client.ts";
import { type CredentialsOptions, credentialsFor } from "./credentials-for.ts";
import { EventRecorder } from "./events.ts";
import { namespaceFromKube, podFromKube } from "./from-kube.ts";
import { KubeError } from "./kube-error.ts";
import { agentPodFromKube, daemonSetFromKube, nodeFromKube } from "./own-objects.ts";
import { daemonSetPath, NAMESPACES_PATH, nodePath, PODS_PATH, podPath } from "./paths.ts";
import { deletePod, labelPod } from "./pod-changes.ts";
import { Reflector } from "./reflector.ts";
import { Store } from "./store.ts";

const READ_TIMEOUT_MS = 10_000;
/** Problems already told; a pod with a broken status would otherwise repeat itself with every event. */
const MAX_TOLD = 1_000;

export interface KubeClusterOptions extends CredentialsOptions {
  readonly nodeName: string;
  /** Source of Events and user agent. */
  readonly component?: string | undefined;
  /** Annotations of pods of which the presence matters, besides those that are known anyway. */
  readonly marks?: readonly string[];
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly clock?: Clock | undefined;
  readonly random?: (() => number) | undefined;
}

/** Pods of this node and all namespaces, from the API server and back to it. */
export class KubeCluster implements Cluster {
  readonly #client: KubeClient;
  readonly #logger: Logger;
  readonly #pods: Store<Pod>;
  readonly #namespaces: Store<Namespace>;
  readonly #podReflector: Reflector<Pod>;
  readonly #namespaceReflector: Reflector<Namespace>;
  readonly #annotator: Annotator;
  readonly #recorder: EventRecorder;
  readonly #stop = new AbortController();
  readonly #told = new Set<string>();
  readonly #marks: readonly string[];

  constructor(options: KubeClusterOptions) {
    const { logger, metrics, nodeName, clock = systemClock, random = Math.random, component = "ambient-cni" } = options;
    // An empty node name would select the pods that are not scheduled yet, of the whole cluster.
    if (!/^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/.test(nodeName)) {
      throw new AgentError(
        "NODE_NAME",
        `NODE_NAME is no node's name: ${JSON.stringify(nodeName)}`,
        "set NODE_NAME from the field spec.nodeName",
      );
    }
    this.#marks = options.marks ?? [];
    this.#logger = logger;
    this.#client = new KubeClient({ credentials: credentialsFor(options), clock, logger, userAgent: component });
    this.#pods = new Store<Pod>(podKey, logger);
    this.#namespaces = new Store<Namespace>((namespace) => namespace.name, logger);
    const shared = { client: this.#client, clock, random, logger, metrics };
    this.#podReflector = new Reflector({
      ...shared,
      resource: "pods",
      path: PODS_PATH,
      fieldSelector: `spec.nodeName=${nodeName}`,
      project: (object) => podFromKube(object, this.#report, this.#marks),
      store: this.#pods,
    });
    this.#namespaceReflector = new Reflector({
      ...shared,
      resource: "namespaces",
      path: NAMESPACES_PATH,
      project: (object) => namespaceFromKube(object, this.#report),
      store: this.#namespaces,
    });
    const { signal } = this.#stop;
    // One listener per call under way, and 200 pods may be annotated at once.
    setMaxListeners(0, signal);
    this.#annotator = new Annotator({ client: this.#client, clock, random, signal });
    this.#recorder = new EventRecorder({
      client: this.#client,
      clock,
      logger,
      nodeName,
      component,
      signal,
      now: () => new Date(),
    });
  }

  /** @throws AgentError KUBE_CREDENTIALS that names the file, KUBE_STOPPED when stopped meanwhile. */
  async start(): Promise<void> {
    await this.#client.verifyCredentials();
    if (this.#stop.signal.aborted) throw new AgentError("KUBE_STOPPED", "stopped before the start");
    this.#podReflector.start();
    this.#namespaceReflector.start();
    await Promise.all([this.#podReflector.synced, this.#namespaceReflector.synced]);
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await Promise.all([this.#podReflector.stop(), this.#namespaceReflector.stop()]);
    await this.#client.close();
  }

  get synced(): boolean {
    return this.#podReflector.isSynced && this.#namespaceReflector.isSynced;
  }

  pods(): IterableIterator<Pod> {
    return this.#pods.values();
  }

  pod(uid: string): Pod | undefined {
    return this.#pods.get(uid);
  }

  podNamed(namespace: string, name: string): Pod | undefined {
    return this.#pods.named(podKey({ namespace, name }));
  }

  namespace(name: string): Namespace | undefined {
    return this.#namespaces.named(name);
  }

  namespaces(): IterableIterator<Namespace> {
    return this.#namespaces.values();
  }

  onPod(listener: (change: PodChange) => void): Stop {
    return this.#pods.listen(({ kind, item, previous }) => listener({ kind, pod: item, previous }));
  }

  onNamespace(listener: (change: NamespaceChange) => void): Stop {
    return this.#namespaces.listen(({ kind, item, previous }) => listener({ kind, namespace: item, previous }));
  }

  async readPod(namespace: string, name: string, signal: AbortSignal): Promise<Pod | undefined> {
    return await this.#read(podPath(namespace, name), signal, (object) => {
      const pod = podFromKube(object, this.#report, this.#marks);
      if (pod === undefined) throw new AgentError("KUBE_MALFORMED", `the pod ${namespace}/${name} can't be read`);
      return pod;
    });
  }

  async readDaemonSet(namespace: string, name: string, signal: AbortSignal): Promise<DaemonSet | undefined> {
    // A server that has not installed all its paths yet, or a proxy, also says 404.
    const isAbout = (refusal: KubeError) => refusal.reason === "NotFound" && refusal.subject === name;
    return await this.#read(daemonSetPath(namespace, name), signal, daemonSetFromKube, isAbout);
  }

  async readAgentPod(namespace: string, name: string, signal: AbortSignal): Promise<AgentPod | undefined> {
    return await this.#read(podPath(namespace, name), signal, agentPodFromKube);
  }

  async readNode(name: string, signal: AbortSignal): Promise<NodeInfo | undefined> {
    return await this.#read(nodePath(name), signal, nodeFromKube);
  }

  planAnnotation(pod: PodRef, value: RedirectionState | null): readonly PlannedChange[] {
    const { method, path, contentType, body } = annotationPatch(pod, value);
    return [{ what: `${method} ${path} (${contentType})`, text: JSON.stringify(body, null, 2) }];
  }

  annotate(pod: PodRef, value: RedirectionState | null): Promise<"patched" | "gone"> {
    return this.#annotator.annotate(pod, value);
  }

  deleteBrokenPod(pod: PodRef & { readonly resourceVersion: string }): Promise<"deleted" | "gone" | "changed"> {
    return deletePod(this.#client, pod, this.#stop.signal);
  }

  labelBrokenPod(pod: PodRef, key: string, value: string): Promise<"patched" | "gone" | "changed"> {
    return labelPod(this.#client, pod, key, value, this.#stop.signal);
  }

  event(pod: PodRef, event: PodEvent): Promise<void> {
    return this.#recorder.record(pod, event);
  }

  status(): readonly CollectionStatus[] {
    const one = (resource: string, size: number, reflector: Reflector<Pod> | Reflector<Namespace>) => ({
      resource,
      synced: reflector.isSynced,
      size,
      resourceVersion: reflector.resourceVersion,
      watchAgeSeconds: reflector.watchAgeSeconds,
      relists: reflector.relists,
    });
    return [
      one("pods", this.#pods.size, this.#podReflector),
      one("namespaces", this.#namespaces.size, this.#namespaceReflector),
    ];
  }

  /** One live GET; undefined = 404. */
  async #read<T>(
    path: string,
    signal: AbortSignal,
    project: (object: unknown) => T,
    isAbsent: (refusal: KubeError) => boolean = () => true,
  ): Promise<T | undefined> {
    let object: unknown;
    try {
      object = await this.#client.request({ method: "GET", path, signal, timeoutMs: READ_TIMEOUT_MS });
    } catch (error) {
      if (error instanceof KubeError && error.status === 404 && isAbsent(error)) return undefined;
      throw error;
    }
    return project(object);
  }

  readonly #report = (problem: string): void => {
    if (this.#told.has(problem)) return;
    if (this.#told.size >= MAX_TOLD) this.#told.clear();
    this.#told.add(problem);
    this.#logger.warn("an object of the API server is not as it should be", { problem });
  };
}
