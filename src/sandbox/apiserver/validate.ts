// SPDX-License-Identifier: Apache-2.0
// The rules of apimachinery's validation package for what every object has.
import { isRecord } from "../../kube/json.ts";
import { invalid } from "./failure.ts";
import type { Resource } from "./resources.ts";

const LABEL = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;
const SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const QUALIFIED = /^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$/;
const MAX_ANNOTATIONS = 256 * 1024;

/** @throws ApiFailure 422 that names the field. */
export function validateMetadata(resource: Resource, metadata: Readonly<Record<string, unknown>>): void {
  const name = typeof metadata.name === "string" ? metadata.name : "";
  validateName(resource, name);
  for (const [key, value] of entries(resource, name, metadata.labels, "metadata.labels")) {
    checkKey(resource, name, "metadata.labels", key);
    if (value.length > 63 || (value !== "" && !QUALIFIED.test(value))) {
      throw invalid(
        resource,
        name,
        "metadata.labels",
        `Invalid value: ${JSON.stringify(value)}: a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character`,
      );
    }
  }
  let size = 0;
  for (const [key, value] of entries(resource, name, metadata.annotations, "metadata.annotations")) {
    checkKey(resource, name, "metadata.annotations", key.toLowerCase());
    size += Buffer.byteLength(key) + Buffer.byteLength(value);
  }
  if (size > MAX_ANNOTATIONS) {
    throw invalid(resource, name, "metadata.annotations", `Too long: may not be more than ${MAX_ANNOTATIONS} bytes`);
  }
}

function validateName(resource: Resource, name: string): void {
  const isLabel = resource.kind === "Namespace";
  const good = isLabel ? name.length <= 63 && LABEL.test(name) : name.length <= 253 && SUBDOMAIN.test(name);
  if (good) return;
  const wanted = isLabel ? "a lowercase RFC 1123 label" : "a lowercase RFC 1123 subdomain";
  throw invalid(resource, name, "metadata.name", `Invalid value: ${JSON.stringify(name)}: ${wanted} is wanted`);
}

function entries(resource: Resource, name: string, map: unknown, field: string): [string, string][] {
  if (map === undefined || map === null) return [];
  if (!isRecord(map)) throw invalid(resource, name, field, "must be a map of strings");
  return Object.entries(map).map(([key, value]) => {
    if (typeof value !== "string") throw invalid(resource, name, `${field}.${key}`, "must be a string");
    return [key, value];
  });
}

function checkKey(resource: Resource, name: string, field: string, key: string): void {
  const slash = key.indexOf("/");
  const prefix = slash < 0 ? undefined : key.slice(0, slash);
  const rest = key.slice(slash + 1);
  const good =
    rest.length <= 63 &&
    QUALIFIED.test(rest) &&
    (prefix === undefined || (prefix.length <= 253 && SUBDOMAIN.test(prefix)));
  if (!good) throw invalid(resource, name, field, `Invalid value: ${JSON.stringify(key)}: not a qualified name`);
}
