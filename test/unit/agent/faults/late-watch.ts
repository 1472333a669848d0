// SPDX-License-Identifier: Apache-2.0
import type { Stop } from "../../../../src/core/disposable.ts";
import type { Namespace, Pod } from "../../../../src/core/pod.ts";
import type {
  Cluster,
  NamespaceChange,
  PodChange,
  PodRef,
  RedirectionState,
} from "../../../../src/core/ports/cluster.ts";
import type { FakeCluster } from "../../../fakes/parts.ts";
import type { VirtualClock } from "./virtual-clock.ts";

/** A cluster as one agent's caches have it: some time after the API server. */
export class LateWatch implements Pick<Cluster, "start" | "stop" | "synced"> {
  synced = false;
  readonly #pods = new Map<string, Pod>();
  readonly #spaces = new Map<string, Namespace>();
  readonly #podListeners = new Set<(change: PodChange) => void>();
  readonly #spaceListeners = new Set<(change: NamespaceChange) => void>();
  readonly #stops: Stop[] = [];

  constructor(
    private readonly api: FakeCluster,
    private readonly clock: VirtualClock,
    /** ms */
    private readonly lag: () => number,
  ) {}

  async start(): Promise<void> {
    for (const pod of this.api.pods()) this.#pods.set(pod.uid, pod);
    for (const space of this.api.namespaces()) this.#spaces.set(space.name, space);
    this.synced = true;
    let last = 0;
    // One after the other, as a watch brings them.
    const later = (task: () => void) => {
      last = Math.max(last, this.clock.now() + this.lag());
      this.clock.after(last - this.clock.now(), task);
    };
    const stopPods = this.api.onPod(({ kind, pod }) =>
      later(() => {
        const previous = this.#pods.get(pod.uid);
        if (kind === "delete") this.#pods.delete(pod.uid);
        else this.#pods.set(pod.uid, pod);
        for (const listener of this.#podListeners) listener({ kind, pod, previous });
      }),
    );
    const stopSpaces = this.api.onNamespace(({ kind, namespace }) =>
      later(() => {
        const previous = this.#spaces.get(namespace.name);
        if (kind === "delete") this.#spaces.delete(namespace.name);
        else this.#spaces.set(namespace.name, namespace);
        for (const listener of this.#spaceListeners) listener({ kind, namespace, previous });
      }),
    );
    this.#stops.push(stopPods, stopSpaces);
  }

  async stop(): Promise<void> {
    for (const stop of this.#stops.splice(0)) stop();
    this.#podListeners.clear();
    this.#spaceListeners.clear();
  }

  pods() {
    return this.#pods.values();
  }
  pod(uid: string) {
    return this.#pods.get(uid);
  }
  podNamed(namespace: string, name: string) {
    return [...this.#pods.values()].find((pod) => pod.namespace === namespace && pod.name === name);
  }
  namespace(name: string) {
    return this.#spaces.get(name);
  }
  namespaces() {
    return this.#spaces.values();
  }
  onPod(listener: (change: PodChange) => void): Stop {
    this.#podListeners.add(listener);
    return () => this.#podListeners.delete(listener);
  }
  onNamespace(listener: (change: NamespaceChange) => void): Stop {
    this.#spaceListeners.add(listener);
    return () => this.#spaceListeners.delete(listener);
  }
  async readPod(namespace: string, name: string) {
    return this.api.podNamed(namespace, name);
  }
  annotate(pod: PodRef, value: RedirectionState | null) {
    return this.api.annotate(pod, value);
  }
  async event(): Promise<void> {}
}
