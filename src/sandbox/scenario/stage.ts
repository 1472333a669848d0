// SPDX-License-Identifier: Apache-2.0

import { DATAPLANE_MODE_LABEL } from "../../core/constants.ts";
import type { AppRemote } from "../app/remote.ts";
import type { RunningPod } from "../kubelet.ts";
import type { MeshService, MeshWorkload } from "../mesh-config.ts";
import { addressesOf } from "../network.ts";
import { ipOf } from "../pod-records.ts";
import type { Sandbox } from "../sandbox.ts";
import type { Scenario, ScenarioPod } from "./schema.ts";

/** The scenario's cluster as it is: nodes, the pods that run, and what ztunnel is told of both. */
export class Stage {
  readonly running = new Map<string, RunningPod>();
  /** Kept connections, and the pods that have them. */
  readonly opened = new Map<string, string>();
  private readonly addresses = new Map<string, readonly string[]>();
  /** Pods that are in the mesh at some time of the scenario: ztunnel is told so throughout, as it may read only once. */
  private readonly meshed: ReadonlySet<string>;

  constructor(
    readonly scenario: Scenario,
    readonly sandboxes: readonly Sandbox[],
  ) {
    this.meshed = meshed(scenario);
    this.foresee();
  }

  node(name: string | undefined): Sandbox {
    const [first] = this.sandboxes;
    const found = name === undefined ? first : this.sandboxes.find((sandbox) => sandbox.name === name);
    if (found === undefined) throw new Error(`no node ${name}`);
    return found;
  }

  /** Nodes that a step means: the one it names, or all. */
  nodes(name: string | undefined): readonly Sandbox[] {
    return name === undefined ? this.sandboxes : [this.node(name)];
  }

  nodeOf(pod: string): Sandbox {
    return this.node(this.template(pod).node);
  }

  template(pod: string): ScenarioPod {
    const template = this.scenario.pods[pod];
    if (template === undefined) throw new Error(`no pod ${pod}`);
    return template;
  }

  /** @throws Error for one that does not run */
  pod(name: string): RunningPod {
    const pod = this.running.get(name);
    if (pod === undefined) throw new Error(`pod ${name} does not run`);
    return pod;
  }

  app(name: string): AppRemote {
    const { app } = this.pod(name);
    if (app === undefined) throw new Error(`pod ${name} has no program to talk to`);
    return app;
  }

  /** Of a pod, a node (as its own pods see it) or a service; an address is itself. */
  address(of: string, family: 4 | 6): string {
    const service = this.scenario.services[of];
    if (service !== undefined) {
      const address = service.addresses.find((each) => each.includes(":") === (family === 6));
      if (address === undefined) throw new Error(`service ${of} has no IPv${family} address`);
      return address;
    }
    const sandbox = this.sandboxes.find(({ name }) => name === of);
    if (sandbox !== undefined) return family === 4 ? sandbox.network.gateway4 : sandbox.network.gateway6;
    return of.includes("/") ? ipOf(this.pod(of), family) : of;
  }

  async startPod(name: string): Promise<RunningPod> {
    if (this.running.has(name)) throw new Error(`pod ${name} runs already`);
    const { labels, annotations, serviceAccount, sidecar } = this.template(name);
    const [namespace = "", own = ""] = name.split("/");
    const { kubelet } = this.nodeOf(name);
    const template = { namespace, name: own, labels, annotations, serviceAccount, sidecar };
    const pod = kubelet.records.has(namespace, own) ? await kubelet.start(template) : await kubelet.run(template);
    this.running.set(name, pod);
    if (pod.ips.join() !== this.addresses.get(name)?.join()) {
      // The stand-in follows; a real ztunnel reads its file at its start.
      this.addresses.set(name, pod.ips);
      this.describe();
    }
    return pod;
  }

  async deletePod(name: string): Promise<void> {
    const pod = this.pod(name);
    await this.nodeOf(name).kubelet.remove(pod);
    this.running.delete(name);
  }

  /** Sets labels of a namespace or pod, or removes them (null). */
  label(of: string, changes: Readonly<Record<string, string | null>>): string {
    return this.change(of, "labels", changes);
  }

  annotate(pod: string, changes: Readonly<Record<string, string>>): string {
    return this.change(pod, "annotations", changes);
  }

  private change(
    of: string,
    field: "labels" | "annotations",
    changes: Readonly<Record<string, string | null>>,
  ): string {
    const { api } = this.node(undefined);
    const [namespace = "", name] = of.split("/");
    const current = name === undefined ? api.get("Namespace", undefined, namespace) : api.get("Pod", namespace, name);
    if (current === undefined) throw new Error(`${of} is not in the API`);
    const merged = { ...current.metadata[field], ...changes };
    const left = Object.fromEntries(
      Object.entries(merged).filter((entry): entry is [string, string] => entry[1] !== null),
    );
    api.put({ ...current, metadata: { ...current.metadata, [field]: left } });
    return `${field} are now ${JSON.stringify(left)}`;
  }

  /** A real ztunnel has to know pods before they are: host-local counts, so that the steps foretell addresses. */
  private foresee(): void {
    const counts = new Map<string, number>();
    for (const step of this.scenario.steps) {
      if (!("start" in step)) continue;
      for (const name of step.start) {
        if (!name.includes("/") || this.addresses.has(name)) continue;
        const { name: node, network } = this.nodeOf(name);
        const index = counts.get(node) ?? 0;
        counts.set(node, index + 1);
        this.addresses.set(name, addressesOf(index, network));
      }
    }
    this.describe();
  }

  private describe(): void {
    const { pods, services } = this.scenario;
    const workloads = Object.entries(pods).map(([pod, { serviceAccount, sidecar }]): MeshWorkload => {
      const [namespace = "", name = ""] = pod.split("/");
      const protocol = this.meshed.has(pod) && !sidecar ? "HBONE" : "TCP";
      const ips = this.addresses.get(pod) ?? [];
      return { namespace, name, serviceAccount, ips, protocol, node: this.nodeOf(pod).name };
    });
    const described = Object.entries(services).map(([service, { addresses, ports, pods: behind }]): MeshService => {
      const [namespace = "", name = ""] = service.split("/");
      return { namespace, name, vips: addresses, ports, pods: behind.map((pod) => pod.slice(pod.indexOf("/") + 1)) };
    });
    for (const sandbox of this.sandboxes) sandbox.describeMesh(workloads, described);
  }
}

function meshed({ namespaces, pods, steps }: Scenario): Set<string> {
  const ambient = (labels: Readonly<Record<string, string>> = {}) => labels[DATAPLANE_MODE_LABEL] === "ambient";
  const labelled = new Set(steps.flatMap((step) => ("label" in step && ambient(step.with) ? [step.label] : [])));
  return new Set(
    Object.entries(pods).flatMap(([pod, { labels }]) => {
      const namespace = pod.slice(0, pod.indexOf("/"));
      if (ambient(labels) || labelled.has(pod)) return [pod];
      const ofNamespace = ambient(namespaces[namespace]) || labelled.has(namespace);
      return ofNamespace && labels[DATAPLANE_MODE_LABEL] !== "none" ? [pod] : [];
    }),
  );
}
