// SPDX-License-Identifier: Apache-2.0
import type { Clock } from "../../../src/core/clock.ts";
import type { PodRef } from "../../../src/core/ports/cluster.ts";
import { KubeCluster } from "../../../src/kube/cluster.ts";
import { type Account, agentRules } from "../../../src/sandbox/apiserver/access.ts";
import { FaultyApiServer } from "../../fakes/apiserver.ts";
import { LogRecorder, MetricRecorder } from "../../support/recorder.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

/** What the charts grant the agent, and nothing more. */
export const CHART_RULES = agentRules();

/** A KubeCluster of node1 with the rights of the chart, over TLS. */
export class ClusterHarness {
  readonly server: FaultyApiServer;
  readonly scratch = new ScratchDir();
  readonly logger = new LogRecorder();
  readonly metrics = new MetricRecorder();
  readonly #clock: Clock | undefined;
  #cluster: KubeCluster | undefined;

  private constructor(rules: Account["rules"], clock: Clock | undefined) {
    this.#clock = clock;
    const account = { user: "system:serviceaccount:istio-system:istio-cni", token: "t", rules };
    this.server = new FaultyApiServer({ accounts: [account] });
  }

  static async create(options: { rules?: Account["rules"]; clock?: Clock } = {}): Promise<ClusterHarness> {
    const harness = new ClusterHarness(options.rules ?? CHART_RULES, options.clock);
    await harness.server.start();
    await harness.server.serviceAccount(harness.scratch.file("sa"), "istio-system");
    harness.server.put({ kind: "Namespace", metadata: { name: "shop" } });
    return harness;
  }

  get cluster(): KubeCluster {
    this.#cluster ??= new KubeCluster({
      nodeName: "node1",
      serviceAccountDir: this.scratch.file("sa"),
      environment: { KUBERNETES_SERVICE_HOST: "127.0.0.1", KUBERNETES_SERVICE_PORT: String(this.server.port) },
      logger: this.logger,
      metrics: this.metrics,
      clock: this.#clock,
      random: () => 0.5,
    });
    return this.#cluster;
  }

  pod(name: string): PodRef {
    const { metadata } = this.server.put({
      kind: "Pod",
      metadata: { name, namespace: "shop" },
      spec: { nodeName: "node1" },
      status: { phase: "Running" },
    });
    return { uid: metadata.uid, namespace: "shop", name };
  }

  annotation(name: string): string | undefined {
    return this.server.get("Pod", "shop", name)?.metadata.annotations?.["ambient.istio.io/redirection"];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cluster?.stop();
    await this.server.close();
    this.scratch[Symbol.dispose]();
  }
}
