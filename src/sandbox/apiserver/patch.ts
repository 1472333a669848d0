// SPDX-License-Identifier: Apache-2.0
import { isDeepStrictEqual } from "node:util";
import { isRecord } from "../../kube/json.ts";
import { ApiFailure } from "./failure.ts";

type Json = unknown;

/**
 * Applies a patch of the given content type to a copy. Strategic merge patches are applied as merge
 * patches: the same for everything but lists, which are replaced.
 * @throws ApiFailure 400, 415 or 422.
 */
export function applyPatch(contentType: string, target: Json, patch: Json): Json {
  switch (contentType.split(";", 1)[0]?.trim()) {
    case "application/merge-patch+json":
      return mergePatch(target, object(patch));
    case "application/strategic-merge-patch+json":
      return mergePatch(target, withoutDirectives(object(patch)));
    case "application/json-patch+json":
      return jsonPatch(target, patch);
    default:
      throw new ApiFailure(415, `the body of the request was in an unknown format: ${contentType}`);
  }
}

function object(patch: Json): Json {
  if (!isRecord(patch)) throw new ApiFailure(400, "the patch is no JSON object");
  return patch;
}

/** RFC 7386. */
export function mergePatch(target: Json, patch: Json): Json {
  if (!isRecord(patch)) return patch;
  const result = new Map(Object.entries(isRecord(target) ? target : {}));
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) result.delete(name);
    else result.set(name, mergePatch(result.get(name), value));
  }
  return Object.fromEntries(result);
}

function withoutDirectives(patch: Json): Json {
  if (Array.isArray(patch)) return patch.map(withoutDirectives);
  if (!isRecord(patch)) return patch;
  const entries = Object.entries(patch).filter(([name]) => {
    if (name === "$patch" || name.startsWith("$deleteFromPrimitiveList")) {
      throw new ApiFailure(400, `the directive ${name} of strategic merge patches is not known here`);
    }
    // Only orders of lists that are replaced anyway.
    return name !== "$retainKeys" && !name.startsWith("$setElementOrder");
  });
  return Object.fromEntries(entries.map(([name, value]) => [name, withoutDirectives(value)]));
}

/** RFC 6902. */
export function jsonPatch(target: Json, operations: Json): Json {
  if (!Array.isArray(operations)) throw new ApiFailure(400, "a JSON patch is a list of operations");
  let document = structuredClone(target);
  for (const operation of operations) {
    if (!isRecord(operation)) throw new ApiFailure(400, "an operation of the JSON patch is no object");
    document = apply(document, operation);
  }
  return document;
}

function apply(document: Json, operation: Readonly<Record<string, Json>>): Json {
  const path = pointer(operation.path);
  switch (operation.op) {
    case "add":
      return edit(document, path, operation.value, "add");
    case "replace":
      read(document, path);
      return edit(document, path, operation.value, "replace");
    case "remove":
      read(document, path);
      return edit(document, path, undefined, "remove");
    case "test":
      if (!isDeepStrictEqual(read(document, path), operation.value)) {
        throw new ApiFailure(422, `testing path ${String(operation.path)} value failed`);
      }
      return document;
    case "copy":
      return edit(document, path, structuredClone(read(document, pointer(operation.from))), "add");
    case "move": {
      const from = pointer(operation.from);
      const value = read(document, from);
      return edit(edit(document, from, undefined, "remove"), path, value, "add");
    }
    default:
      throw new ApiFailure(400, `unknown JSON patch operation: ${JSON.stringify(operation.op)}`);
  }
}

/** RFC 6901. */
function pointer(text: Json): string[] {
  if (typeof text !== "string" || (text !== "" && !text.startsWith("/"))) {
    throw new ApiFailure(400, `not a JSON pointer: ${JSON.stringify(text)}`);
  }
  return text
    .split("/")
    .slice(1)
    .map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));
}

function read(document: Json, path: readonly string[]): Json {
  let value = document;
  for (const step of path) {
    const exists = Array.isArray(value) ? /^\d+$/.test(step) && Number(step) < value.length : isRecord(value);
    if (!exists || !Object.hasOwn(value as object, step)) {
      throw new ApiFailure(422, `the path /${path.join("/")} of the JSON patch does not exist`);
    }
    value = (value as Record<string, Json>)[step];
  }
  return value;
}

function edit(document: Json, path: readonly string[], value: Json, how: "add" | "replace" | "remove"): Json {
  const [step, ...rest] = path;
  if (step === undefined) return how === "remove" ? {} : value;
  if (Array.isArray(document)) return editList(document, step, rest, value, how);
  if (!isRecord(document)) throw new ApiFailure(422, `the path to ${JSON.stringify(step)} does not exist`);
  const result = new Map(Object.entries(document));
  if (rest.length === 0) {
    if (how === "remove") result.delete(step);
    else result.set(step, value);
  } else {
    if (!result.has(step)) throw new ApiFailure(422, `the path to ${JSON.stringify(rest[0])} does not exist`);
    result.set(step, edit(result.get(step), rest, value, how));
  }
  return Object.fromEntries(result);
}

function editList(list: readonly Json[], step: string, rest: readonly string[], value: Json, how: string): Json {
  const index = step === "-" ? list.length : Number(step);
  if (!Number.isInteger(index) || index < 0 || index > list.length) {
    throw new ApiFailure(422, `no such list index: ${JSON.stringify(step)}`);
  }
  const copy = [...list];
  if (rest.length > 0) copy[index] = edit(list[index], rest, value, how as "add");
  else if (how === "add") copy.splice(index, 0, value);
  else if (how === "remove") copy.splice(index, 1);
  else copy[index] = value;
  return copy;
}
