// SPDX-License-Identifier: Apache-2.0
import { randomBytes, randomUUID } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import { isRecord, type JsonRecord, recordOf, textOf } from "../../kube/json.ts";
import { ApiFailure, alreadyExists, conflict, invalid, notFound } from "./failure.ts";
import { type KubeObject, kubeTime, type ObjectMeta } from "./object.ts";
import type { ObjectStore } from "./object-store.ts";
import { applyPatch } from "./patch.ts";
import { apiVersionOf, RESOURCES, type Resource, resourceOfKind } from "./resources.ts";
import { validateMetadata } from "./validate.ts";

export interface DeleteOptions {
  readonly uid?: string | undefined;
  readonly resourceVersion?: string | undefined;
  readonly gracePeriodSeconds?: number | undefined;
}

export interface RegistryOptions {
  /**
   * True: deleting a pod only marks it (deletionTimestamp) until a kubelet deletes it with a grace
   * period of 0, as in a cluster. False: it is gone at once.
   */
  readonly gracefulPods: boolean;
  readonly now: () => Date;
}

const GRACE_SECONDS = 30;

/** The rules by which requests change objects. @throws ApiFailure throughout. */
export class Registry {
  readonly #store: ObjectStore;
  readonly #options: RegistryOptions;

  constructor(store: ObjectStore, options: RegistryOptions) {
    this.#store = store;
    this.#options = options;
  }

  get(resource: Resource, namespace: string | undefined, name: string): KubeObject {
    const object = this.#store.get(resource, namespace, name);
    if (object === undefined) throw notFound(resource, name);
    return object;
  }

  create(resource: Resource, namespace: string | undefined, body: unknown): KubeObject {
    const source = this.#checkedBody(resource, body);
    const metadata = recordOf(source.metadata);
    const name = nameOf(metadata);
    const complete = {
      ...metadata,
      name,
      ...this.#namespaceOf(resource, namespace, metadata),
    };
    validateMetadata(resource, complete);
    if (namespace !== undefined) this.#checkNamespace(namespace);
    if (this.#store.get(resource, namespace, name) !== undefined) throw alreadyExists(resource, name);
    return this.#store.put(
      resource,
      withDefaults(resource, {
        ...source,
        apiVersion: apiVersionOf(resource),
        kind: resource.kind,
        metadata: {
          ...complete,
          uid: randomUUID(),
          creationTimestamp: kubeTime(this.#options.now()),
          resourceVersion: "",
        },
      }),
    );
  }

  update(
    resource: Resource,
    namespace: string | undefined,
    name: string,
    subresource: string | undefined,
    body: unknown,
  ): KubeObject {
    const current = this.get(resource, namespace, name);
    return this.#replace(resource, current, this.#checkedBody(resource, body), subresource);
  }

  patch(
    resource: Resource,
    namespace: string | undefined,
    name: string,
    subresource: string | undefined,
    contentType: string,
    patch: unknown,
  ): KubeObject {
    const current = this.get(resource, namespace, name);
    const patched = applyPatch(contentType, current, patch);
    return this.#replace(resource, current, this.#checkedBody(resource, patched), subresource);
  }

  /** The object as it was last, or as it is now that it is terminating. */
  delete(resource: Resource, namespace: string | undefined, name: string, options: DeleteOptions): KubeObject {
    const current = this.get(resource, namespace, name);
    const { uid, resourceVersion } = options;
    if (uid !== undefined && uid !== current.metadata.uid) throw conflict(resource, name, uidMismatch(uid, current));
    if (resourceVersion !== undefined && resourceVersion !== current.metadata.resourceVersion) {
      throw conflict(resource, name, `Precondition failed: ResourceVersion in precondition: ${resourceVersion}`);
    }
    if (resource.kind === "Namespace") return this.#deleteNamespace(resource, current);
    const grace = options.gracePeriodSeconds ?? GRACE_SECONDS;
    if (resource.kind === "Pod" && this.#options.gracefulPods && grace > 0) {
      return this.#terminate(resource, current, grace);
    }
    const last = this.#store.remove(resource, current);
    this.#finishNamespace(current.metadata.namespace);
    return last;
  }

  #terminate(resource: Resource, current: KubeObject, grace: number): KubeObject {
    if (current.metadata.deletionTimestamp !== undefined) return current;
    const at = new Date(this.#options.now().getTime() + grace * 1000);
    const metadata = { ...current.metadata, deletionTimestamp: kubeTime(at), deletionGracePeriodSeconds: grace };
    return this.#store.put(resource, { ...current, metadata });
  }

  #deleteNamespace(resource: Resource, current: KubeObject): KubeObject {
    const { name } = current.metadata;
    const metadata = { ...current.metadata, deletionTimestamp: kubeTime(this.#options.now()) };
    const terminating = this.#store.put(resource, { ...current, metadata, status: { phase: "Terminating" } });
    for (const content of RESOURCES.filter((candidate) => candidate.namespaced)) {
      for (const object of this.#store.list(content, name)) this.delete(content, name, object.metadata.name, {});
    }
    this.#finishNamespace(name);
    return terminating;
  }

  /** A terminating namespace goes when nothing is left in it. */
  #finishNamespace(name: string | undefined): void {
    const resource = resourceOfKind("Namespace");
    if (name === undefined || resource === undefined) return;
    const namespace = this.#store.get(resource, undefined, name);
    if (namespace?.metadata.deletionTimestamp === undefined) return;
    const left = RESOURCES.some((content) => content.namespaced && this.#store.list(content, name).length > 0);
    if (!left) this.#store.remove(resource, namespace);
  }

  #replace(resource: Resource, current: KubeObject, wanted: JsonRecord, subresource: string | undefined): KubeObject {
    const { name } = current.metadata;
    const metadata = recordOf(wanted.metadata);
    const uid = textOf(metadata.uid);
    if (uid !== "" && uid !== current.metadata.uid) throw conflict(resource, name, uidMismatch(uid, current));
    const version = textOf(metadata.resourceVersion);
    if (version !== "" && version !== current.metadata.resourceVersion) {
      throw conflict(
        resource,
        name,
        "the object has been modified; please apply your changes to the latest version and try again",
      );
    }
    if ((textOf(metadata.name) || name) !== name) {
      throw new ApiFailure(
        400,
        `the name of the object (${textOf(metadata.name)}) does not match the name on the URL (${name})`,
      );
    }
    const next: KubeObject = {
      ...current,
      ...wanted,
      ...keptParts(resource, current, wanted, subresource),
      apiVersion: current.apiVersion,
      kind: current.kind,
      metadata: { ...metadata, ...immutableOf(current.metadata) },
    };
    // What the patch or the new object leaves out is gone.
    const left = Object.fromEntries(Object.entries(next).filter(([field]) => isKept(field, wanted, next)));
    const object = left as unknown as KubeObject;
    validateMetadata(resource, object.metadata);
    if (resource.kind === "Pod") checkPodUpdate(resource, current, object);
    // As etcd3: an update that changes nothing makes no new version and no event.
    if (isDeepStrictEqual(object, current)) return current;
    return this.#store.put(resource, object);
  }

  #checkedBody(resource: Resource, body: unknown): JsonRecord {
    if (!isRecord(body)) throw new ApiFailure(400, "the object provided is unrecognized: it is no JSON object");
    const kind = body.kind ?? resource.kind;
    const version = body.apiVersion ?? apiVersionOf(resource);
    if (kind !== resource.kind || version !== apiVersionOf(resource)) {
      throw new ApiFailure(400, `${String(version)}, Kind=${String(kind)} does not fit ${resource.plural}`);
    }
    if (!isRecord(body.metadata)) throw invalid(resource, "", "metadata", "Required value");
    return body;
  }

  #namespaceOf(resource: Resource, namespace: string | undefined, metadata: JsonRecord): { namespace?: string } {
    const said = textOf(metadata.namespace);
    if (!resource.namespaced || namespace === undefined) return {};
    if (said !== "" && said !== namespace) {
      throw new ApiFailure(
        400,
        `the namespace of the object (${said}) does not match the namespace on the URL (${namespace})`,
      );
    }
    return { namespace };
  }

  #checkNamespace(name: string): void {
    const resource = resourceOfKind("Namespace");
    if (resource === undefined) return;
    const namespace = this.get(resource, undefined, name);
    if (namespace.metadata.deletionTimestamp !== undefined) {
      throw new ApiFailure(403, `unable to create new content in namespace ${name} because it is being terminated`);
    }
  }
}

function nameOf(metadata: JsonRecord): string {
  const name = textOf(metadata.name);
  const prefix = textOf(metadata.generateName);
  return name === "" && prefix !== "" ? `${prefix}${randomBytes(4).toString("hex").slice(0, 5)}` : name;
}

function uidMismatch(uid: string, current: KubeObject): string {
  return `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${current.metadata.uid}`;
}

function immutableOf(metadata: ObjectMeta): ObjectMeta {
  const { name, namespace, uid, resourceVersion, creationTimestamp, deletionTimestamp } = metadata;
  return {
    name,
    uid,
    resourceVersion,
    creationTimestamp,
    ...(namespace === undefined ? {} : { namespace }),
    ...(deletionTimestamp === undefined ? {} : { deletionTimestamp }),
  };
}

/** Through /status only status and metadata change; through the object itself, all but the status. */
function keptParts(resource: Resource, current: KubeObject, wanted: JsonRecord, subresource: string | undefined) {
  if (!resource.subresources.includes("status")) return {};
  if (subresource !== "status") return { status: current.status };
  const kept = Object.fromEntries(Object.entries(current).filter(([field]) => field !== "metadata"));
  return { ...kept, status: wanted.status };
}

function isKept(field: string, wanted: JsonRecord, next: KubeObject): boolean {
  if (next[field] === undefined) return false;
  return field in wanted || field === "apiVersion" || field === "kind" || field === "status" || field === "spec";
}

function withDefaults(resource: Resource, object: KubeObject): KubeObject {
  const spec = recordOf(object.spec);
  const status = recordOf(object.status);
  if (resource.kind === "Pod") {
    return {
      ...object,
      spec: { serviceAccountName: "default", restartPolicy: "Always", containers: [], ...spec },
      status: { phase: "Pending", ...status },
    };
  }
  if (resource.kind === "Namespace") {
    const labels = { "kubernetes.io/metadata.name": object.metadata.name, ...object.metadata.labels };
    return {
      ...object,
      metadata: { ...object.metadata, labels },
      spec: { finalizers: ["kubernetes"] },
      status: { phase: "Active" },
    };
  }
  return object;
}

/** Where a pod runs, and as whom, is settled once. */
function checkPodUpdate(resource: Resource, current: KubeObject, next: KubeObject): void {
  const before = recordOf(current.spec);
  const after = recordOf(next.spec);
  for (const field of ["nodeName", "hostNetwork", "serviceAccountName", "runtimeClassName"]) {
    const scheduled = field === "nodeName" && before[field] === undefined;
    if (!scheduled && before[field] !== after[field]) {
      throw invalid(resource, current.metadata.name, "spec", `Forbidden: pod updates may not change ${field}`);
    }
  }
}
