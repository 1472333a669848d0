// SPDX-License-Identifier: Apache-2.0
// The Table form that kubectl asks for: columns as the server prints them.
import { DATAPLANE_MODE_LABEL, REDIRECTION_ANNOTATION } from "../../core/constants.ts";
import { listOf, recordOf, textOf } from "../../kube/json.ts";
import type { KubeObject } from "./object.ts";
import type { Resource } from "./resources.ts";

interface Column {
  readonly name: string;
  /** 0 = always shown, 1 = with `-o wide`. */
  readonly priority: number;
  readonly cell: (object: KubeObject, now: Date) => string;
}

const NAME: Column = { name: "Name", priority: 0, cell: (object) => object.metadata.name };
const AGE: Column = {
  name: "Age",
  priority: 0,
  cell: (object, now) => since(object.metadata.creationTimestamp, now),
};

const COLUMNS: Readonly<Record<string, readonly Column[]>> = {
  Pod: [
    NAME,
    { name: "Ready", priority: 0, cell: readyOf },
    { name: "Status", priority: 0, cell: podStatus },
    { name: "Mesh", priority: 0, cell: (pod) => pod.metadata.annotations?.[REDIRECTION_ANNOTATION] ?? "-" },
    AGE,
    { name: "IP", priority: 0, cell: (pod) => textOf(recordOf(pod.status).podIP) || "<none>" },
    { name: "Node", priority: 1, cell: (pod) => textOf(recordOf(pod.spec).nodeName) || "<none>" },
  ],
  Namespace: [
    NAME,
    { name: "Status", priority: 0, cell: (object) => textOf(recordOf(object.status).phase) },
    { name: "Mode", priority: 0, cell: (object) => object.metadata.labels?.[DATAPLANE_MODE_LABEL] ?? "-" },
    AGE,
  ],
  Event: [
    { name: "Last Seen", priority: 0, cell: (event, now) => since(textOf(event.lastTimestamp), now) },
    { name: "Type", priority: 0, cell: (event) => textOf(event.type) },
    { name: "Reason", priority: 0, cell: (event) => textOf(event.reason) },
    { name: "Object", priority: 0, cell: involved },
    { name: "Message", priority: 0, cell: (event) => textOf(event.message).trim() },
    { ...NAME, priority: 1 },
  ],
};

/** True when the Accept header prefers a Table of the version we make. */
export function wantsTable(accept: string | undefined): boolean {
  const first = (accept ?? "").split(",", 1)[0] ?? "";
  return first.includes("as=Table") && first.includes("v=v1;");
}

/** A Table of the objects. Its rows carry the metadata, from which kubectl prints label columns. */
export function tableOf(
  resource: Resource,
  objects: readonly KubeObject[],
  metadata: unknown,
  includeObject: string | undefined,
  now: Date,
): unknown {
  const columns = COLUMNS[resource.kind] ?? [NAME, AGE];
  return {
    kind: "Table",
    apiVersion: "meta.k8s.io/v1",
    metadata,
    columnDefinitions: columns.map(({ name, priority }) => ({
      name,
      type: "string",
      format: name === "Name" ? "name" : "",
      description: "",
      priority,
    })),
    rows: objects.map((object) => ({
      cells: columns.map((column) => column.cell(object, now)),
      ...rowObject(object, includeObject),
    })),
  };
}

function rowObject(object: KubeObject, includeObject: string | undefined) {
  if (includeObject === "None") return {};
  if (includeObject === "Object") return { object };
  return {
    object: { kind: "PartialObjectMetadata", apiVersion: "meta.k8s.io/v1", metadata: object.metadata },
  };
}

function readyOf(pod: KubeObject): string {
  const statuses = listOf(recordOf(pod.status).containerStatuses);
  const ready = statuses.filter((status) => recordOf(status).ready === true).length;
  return `${ready}/${listOf(recordOf(pod.spec).containers).length}`;
}

function podStatus(pod: KubeObject): string {
  if (pod.metadata.deletionTimestamp !== undefined) return "Terminating";
  const status = recordOf(pod.status);
  return textOf(status.reason) || textOf(status.phase);
}

function involved(event: KubeObject): string {
  const object = recordOf(event.involvedObject);
  return `${textOf(object.kind).toLowerCase()}/${textOf(object.name)}`;
}

/** As kubectl: the two largest units while they matter. */
function since(timestamp: string, now: Date): string {
  const seconds = Math.floor((now.getTime() - Date.parse(timestamp)) / 1000);
  if (Number.isNaN(seconds)) return "<unknown>";
  if (seconds < 120) return `${Math.max(0, seconds)}s`;
  if (seconds < 600) return `${Math.floor(seconds / 60)}m${seconds % 60 === 0 ? "" : `${seconds % 60}s`}`;
  if (seconds < 3 * 3600) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86400)}d`;
}
