// SPDX-License-Identifier: Apache-2.0
import { AGENT_DAEMONSET } from "../core/constants.ts";
import type { ApiServer } from "./apiserver/api-server.ts";
import type { Chart } from "./charts.ts";

/** The image of the agent; nothing is pulled. */
const IMAGE = "registry.example/ambient-cni:1.0.0";
const CONTAINER = "install-cni";
/** Name of the agent's pod on a node. */
export const agentPod = (nodeName: string): string => `${AGENT_DAEMONSET}-${nodeName}`;

export interface AgentTemplate {
  readonly image?: string;
  readonly nodeSelector?: Readonly<Record<string, string>>;
}

/** The agent's DaemonSet and its pod in the API, as far as an agent looks at them. Nobody acts on them. */
export class AgentDaemonSet {
  private generation = 0;
  private image = IMAGE;

  constructor(
    private readonly api: ApiServer,
    private readonly namespace: string,
    private readonly chart: Chart,
  ) {}

  /** Creates it, or changes its template. */
  put({ image = IMAGE, nodeSelector = {} }: AgentTemplate = {}): void {
    this.generation += 1;
    this.image = image;
    this.api.put({
      kind: "DaemonSet",
      metadata: {
        name: AGENT_DAEMONSET,
        namespace: this.namespace,
        annotations: { "deprecated.daemonset.template.generation": String(this.generation) },
      },
      spec: { template: { spec: { containers: [{ name: CONTAINER, image }], nodeSelector } } },
    });
  }

  delete(): void {
    this.api.delete("DaemonSet", this.namespace, AGENT_DAEMONSET);
  }

  /** Its pod on a node, made from the template as it is now. */
  putPod(nodeName: string): void {
    const { hostNetwork, graceSeconds } = this.chart;
    const owner = {
      apiVersion: "apps/v1",
      kind: "DaemonSet",
      name: AGENT_DAEMONSET,
      uid: "daemonset",
      controller: true,
    };
    this.api.put({
      kind: "Pod",
      metadata: {
        name: agentPod(nodeName),
        namespace: this.namespace,
        labels: { "k8s-app": AGENT_DAEMONSET, "pod-template-generation": String(this.generation) },
        ownerReferences: [owner],
      },
      spec: {
        nodeName,
        hostNetwork,
        terminationGracePeriodSeconds: graceSeconds,
        containers: [{ name: CONTAINER, image: this.image }],
      },
      status: { phase: "Running" },
    });
  }
}
