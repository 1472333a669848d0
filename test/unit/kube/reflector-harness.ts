// SPDX-License-Identifier: Apache-2.0
import { systemClock } from "../../../src/core/clock.ts";
import { type Pod, podKey } from "../../../src/core/pod.ts";
import { KubeClient } from "../../../src/kube/client.ts";
import { podFromKube } from "../../../src/kube/from-kube.ts";
import { Reflector } from "../../../src/kube/reflector.ts";
import { Store } from "../../../src/kube/store.ts";
import { FaultyApiServer } from "../../fakes/apiserver.ts";
import { LogRecorder, MetricRecorder } from "../../support/recorder.ts";
import { StepClock } from "./step-clock.ts";
import { until } from "./until.ts";

/** A reflector of node1's pods against a server that misbehaves on demand; time is the test's. */
export class ReflectorHarness {
  readonly server = new FaultyApiServer({ tls: false });
  readonly clock = new StepClock();
  readonly logger = new LogRecorder();
  readonly metrics = new MetricRecorder();
  readonly store = new Store<Pod>(podKey, this.logger);
  /** `+name:uid` and `-name:uid`. */
  readonly told: string[] = [];
  /** 0.5 = no jitter. */
  random = 0.5;
  #client: KubeClient | undefined;
  #reflector: Reflector<Pod> | undefined;

  static async create(): Promise<ReflectorHarness> {
    const harness = new ReflectorHarness();
    await harness.server.start();
    harness.server.put({ kind: "Namespace", metadata: { name: "shop" } });
    harness.store.listen(({ kind, item }) => {
      harness.told.push(`${kind === "upsert" ? "+" : "-"}${item.name}:${item.uid}`);
    });
    return harness;
  }

  get client(): KubeClient {
    this.#client ??= new KubeClient({
      credentials: {
        origin: "test",
        load: async () => ({ server: new URL(this.server.url), headers: {}, tls: undefined }),
      },
      clock: systemClock,
      logger: this.logger,
      userAgent: "test",
    });
    return this.#client;
  }

  get reflector(): Reflector<Pod> {
    this.#reflector ??= new Reflector({
      resource: "pods",
      path: "/api/v1/pods",
      fieldSelector: "spec.nodeName=node1",
      project: (object) => podFromKube(object, (problem) => this.logger.warn(problem)),
      store: this.store,
      client: this.client,
      clock: this.clock,
      random: () => this.random,
      logger: this.logger,
      metrics: this.metrics,
    });
    return this.#reflector;
  }

  /** Puts a pod of node1; answers its uid. */
  pod(name: string, extra: { annotations?: Record<string, string>; nodeName?: string } = {}): string {
    const { annotations = {}, nodeName = "node1" } = extra;
    const object = this.server.put({
      kind: "Pod",
      metadata: { name, namespace: "shop", annotations },
      spec: { nodeName },
      status: { phase: "Running" },
    });
    return object.metadata.uid;
  }

  remove(name: string): void {
    this.server.delete("Pod", "shop", name);
  }

  get names(): string[] {
    return [...this.store.values()].map((pod) => pod.name).sort();
  }

  /** Starts and waits for the first list and an open watch. */
  async run(): Promise<void> {
    this.reflector.start();
    await this.reflector.synced;
    await this.watching();
  }

  async watching(): Promise<void> {
    await until(
      () => this.server.openWatches === 1 && this.reflector.watchAgeSeconds !== undefined,
      "no watch is open",
    );
  }

  async holds(...names: string[]): Promise<void> {
    await until(
      () => this.names.join() === names.join(),
      `the store holds ${this.names.join()} instead of ${names.join()}`,
    );
  }

  /** Value of a counter. */
  counted(name: string, labels: Record<string, string>): number {
    return this.metrics.counts.get(`${name}${JSON.stringify(labels)}`) ?? 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#reflector?.stop();
    await this.#client?.close();
    await this.server.close();
  }
}
