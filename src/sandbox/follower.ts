// SPDX-License-Identifier: Apache-2.0
import { messageOf } from "../core/errors.ts";
import type { ApiServer } from "./apiserver/api-server.ts";
import type { KubeObject } from "./apiserver/object.ts";
import type { Kubelet } from "./kubelet.ts";

const RETRY_MS = 1000;

/**
 * Lets a person play: pods that appear in the API are started on the node (whatever their image, they
 * run the sandbox's program), and those that are deleted are stopped.
 */
export class PodFollower {
  private readonly busy = new Set<string>();
  private readonly stopListening: () => void;

  constructor(
    private readonly api: ApiServer,
    private readonly kubelet: Kubelet,
    private readonly say: (text: string) => void,
  ) {
    this.stopListening = api.onChange(({ type, object }) => {
      if (object.kind !== "Pod") return;
      if (type === "DELETED") void this.deleted(object);
      else void this.appeared(object);
    });
  }

  stop(): void {
    this.stopListening();
  }

  private async appeared({ metadata }: KubeObject): Promise<void> {
    const { namespace = "default", name = "" } = metadata;
    const key = `${namespace}/${name}`;
    if (this.kubelet.pods.has(key) || this.busy.has(key)) return;
    this.busy.add(key);
    try {
      this.kubelet.records.adopt(namespace, name);
      await this.kubelet.start({ namespace, name });
      this.say(`pod ${key} runs\n`);
    } catch (error) {
      this.say(`pod ${key} does not start: ${messageOf(error)}\n`);
      setTimeout(() => {
        const again = this.api.get("Pod", namespace, name);
        if (again !== undefined) void this.appeared(again);
      }, RETRY_MS).unref();
    } finally {
      this.busy.delete(key);
    }
  }

  private async deleted({ metadata }: KubeObject): Promise<void> {
    const pod = this.kubelet.pods.get(`${metadata.namespace ?? "default"}/${metadata.name ?? ""}`);
    if (pod === undefined || pod.uid !== metadata.uid) return;
    await this.kubelet
      .remove(pod)
      .then(() => this.say(`pod ${pod.namespace}/${pod.name} is gone\n`))
      .catch((error: unknown) => this.say(`pod ${pod.name}: ${messageOf(error)}\n`));
  }
}
