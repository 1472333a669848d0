// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type {
  V1ClusterRole,
  V1ConfigMap,
  V1Container,
  V1DaemonSet,
  V1ObjectMeta,
  V1VolumeMount,
} from "@kubernetes/client-node";
import { parseAllDocuments } from "yaml";
import { FIXTURE_DIR } from "../../scripts/render-chart.ts";

export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: V1ObjectMeta;
}

interface Kinds {
  readonly ConfigMap: V1ConfigMap;
  readonly ClusterRole: V1ClusterRole;
  readonly DaemonSet: V1DaemonSet;
}

/** The chart's objects as rendered for one case of scripts/render-chart.ts. */
export class RenderedChart {
  readonly objects: readonly Manifest[];

  constructor(readonly name: string) {
    this.objects = readManifests(join(FIXTURE_DIR, `${name}.yaml`));
  }

  kinds(): string[] {
    return this.objects.map(({ kind }) => kind).sort();
  }

  /** @throws Error when there is none or more than one. */
  only<Kind extends keyof Kinds>(kind: Kind): Kinds[Kind] {
    const found = this.objects.filter((object) => object.kind === kind);
    const [object] = found;
    if (object === undefined || found.length > 1) throw new Error(`${this.name}: ${found.length} objects of ${kind}`);
    return object as unknown as Kinds[Kind];
  }

  get container(): V1Container {
    const [container] = this.only("DaemonSet").spec?.template.spec?.containers ?? [];
    if (container === undefined) throw new Error(`${this.name}: no container`);
    return container;
  }

  /** The node's directory that is mounted at a path of the container. */
  hostPath(mountPath: string): string | undefined {
    const name = this.mount(mountPath)?.name;
    const volumes = this.only("DaemonSet").spec?.template.spec?.volumes ?? [];
    return volumes.find((volume) => volume.name === name)?.hostPath?.path;
  }

  mount(mountPath: string): V1VolumeMount | undefined {
    return this.container.volumeMounts?.find((mount) => mount.mountPath === mountPath);
  }

  /** As kubelet gives it to the container, on a node named node-1 with 128 MiB for it. */
  environment(): Record<string, string> {
    const fields: Readonly<Record<string, string>> = {
      "spec.nodeName": "node-1",
      "metadata.name": "istio-cni-node-x1y2z",
      "metadata.namespace": "istio-system",
      "limits.memory": String(128 * 2 ** 20),
    };
    const environment: Record<string, string> = { ...this.only("ConfigMap").data };
    for (const { name, value, valueFrom } of this.container.env ?? []) {
      const field = valueFrom?.fieldRef?.fieldPath ?? valueFrom?.resourceFieldRef?.resource;
      const given = field === undefined ? value : fields[field];
      if (given === undefined) throw new Error(`${this.name}: nothing is known of the variable ${name}`);
      environment[name] = given;
    }
    return environment;
  }
}

/** All objects of a YAML file. @throws Error for what is no YAML, doubled keys included. */
export function readManifests(path: string): Manifest[] {
  return parseAllDocuments(readFileSync(path, "utf8"), { uniqueKeys: true }).flatMap((document) => {
    const [error] = document.errors;
    if (error !== undefined) throw new Error(`${path}: ${error.message}`);
    const object: unknown = document.toJS();
    return object === null ? [] : [object as Manifest];
  });
}
