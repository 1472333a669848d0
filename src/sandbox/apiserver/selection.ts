// SPDX-License-Identifier: Apache-2.0
// Label and field selectors in the text form of query parameters.
import { isRecord } from "../../kube/json.ts";
import { ApiFailure } from "./failure.ts";
import type { KubeObject } from "./object.ts";
import type { Resource } from "./resources.ts";

export type Selection = (object: KubeObject) => boolean;

type Labels = Readonly<Record<string, string>>;

/** Both selectors of a request. @throws ApiFailure 400 that names the selector. */
export function selection(resource: Resource, labels: string | undefined, fields: string | undefined): Selection {
  const tests = [...labelTests(labels ?? ""), ...fieldTests(resource, fields ?? "")];
  return (object) => tests.every((test) => test(object));
}

function labelTests(text: string): Selection[] {
  if (text.trim() === "") return [];
  // Commas inside the parentheses of a set belong to it.
  return text.split(/,(?![^(]*\))/).map((part) => {
    const test = labelTest(part.trim());
    if (test === undefined) {
      throw new ApiFailure(400, `unable to parse requirement: label selector ${JSON.stringify(part)}`);
    }
    return (object) => test(object.metadata.labels ?? {});
  });
}

function labelTest(part: string): ((labels: Labels) => boolean) | undefined {
  const set = /^([^\s!=,()]+)\s+(in|notin)\s*\(([^()]*)\)$/.exec(part);
  if (set !== null) {
    const [, key = "", operator, list = ""] = set;
    const values = new Set(list.split(",").map((value) => value.trim()));
    return (labels) => values.has(labels[key] ?? "\0") === (operator === "in");
  }
  const equality = /^([^\s!=,()]+)\s*(==|=|!=)\s*([^\s!=,()]*)$/.exec(part);
  if (equality !== null) {
    const [, key = "", operator, value] = equality;
    return (labels) => (labels[key] === value) === (operator !== "!=");
  }
  const presence = /^(!?)\s*([^\s!=,()]+)$/.exec(part);
  if (presence !== null) {
    const [, not, key = ""] = presence;
    return (labels) => Object.hasOwn(labels, key) === (not === "");
  }
  return undefined;
}

function fieldTests(resource: Resource, text: string): Selection[] {
  if (text.trim() === "") return [];
  const known = new Set(["metadata.name", "metadata.namespace", ...resource.fieldSelectors]);
  return text.split(",").map((part) => {
    const match = /^([\w.]+)(==|=|!=)(.*)$/.exec(part.trim());
    if (match === null) throw new ApiFailure(400, `invalid field selector: ${JSON.stringify(part)}`);
    const [, field = "", operator, value] = match;
    if (!known.has(field)) throw new ApiFailure(400, `field label not supported: ${field}`);
    return (object) => (fieldOf(object, field) === value) === (operator !== "!=");
  });
}

function fieldOf(object: KubeObject, field: string): string {
  let value: unknown = object;
  for (const step of field.split(".")) value = isRecord(value) ? value[step] : undefined;
  return value === undefined || value === null ? "" : String(value);
}
