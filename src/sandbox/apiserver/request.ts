// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage } from "node:http";
import type { Verb } from "./access.ts";
import { ApiFailure } from "./failure.ts";
import { PROTOBUF, parseProtobuf } from "./protobuf-body.ts";
import { type Resource, resourceAt } from "./resources.ts";
import { wantsTable } from "./table.ts";

export interface ApiRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly contentType: string;
  /** The parsed object; undefined when there is no body. */
  readonly body: unknown;
  readonly table: boolean;
  readonly authorization: string | undefined;
  /** Undefined for discovery and the like. */
  readonly target: ApiTarget | undefined;
}

/** Which resource a path names, and what is to be done with it. */
export interface ApiTarget {
  readonly verb: Verb;
  readonly resource: Resource;
  readonly namespace: string | undefined;
  readonly name: string | undefined;
  readonly subresource: string | undefined;
}

/** Reads a request to its end. @throws ApiFailure 400, 404, 405 or 413. */
export async function parseRequest(incoming: IncomingMessage, maxBody: number): Promise<ApiRequest> {
  const method = incoming.method ?? "GET";
  const url = new URL(incoming.url ?? "/", "http://server");
  const contentType = incoming.headers["content-type"] ?? "application/json";
  const bytes = await readBody(incoming, maxBody);
  const target = targetOf(method, url);
  return {
    method,
    path: url.pathname,
    query: url.searchParams,
    contentType,
    body: target === undefined ? undefined : parseBody(bytes, contentType),
    table: wantsTable(incoming.headers.accept),
    authorization: incoming.headers.authorization,
    target,
  };
}

function targetOf(method: string, url: URL): ApiTarget | undefined {
  const steps = url.pathname
    .split("/")
    .filter((step) => step !== "")
    .map(decode);
  const grouped = steps[0] === "apis";
  if (!grouped && steps[0] !== "api") return undefined;
  const [group = "", version = "", ...rest] = grouped ? steps.slice(1) : ["", ...steps.slice(1)];
  if (rest.length === 0) return undefined;
  const inNamespace =
    rest[0] === "namespaces" && rest.length > 2 && resourceAt(group, version, rest[2] ?? "") !== undefined;
  const [plural = "", name, subresource, ...more] = inNamespace ? rest.slice(2) : rest;
  const resource = resourceAt(group, version, plural);
  const unknown = more.length > 0 || (subresource !== undefined && !resource?.subresources.includes(subresource));
  if (resource === undefined || unknown || (inNamespace && !resource.namespaced)) {
    throw new ApiFailure(404, "the server could not find the requested resource");
  }
  const namespace = inNamespace ? rest[1] : undefined;
  if (resource.namespaced && namespace === undefined && (name !== undefined || method !== "GET")) {
    throw new ApiFailure(404, "the server could not find the requested resource");
  }
  return { verb: verbOf(method, name, url.searchParams), resource, namespace, name, subresource };
}

function decode(step: string): string {
  try {
    return decodeURIComponent(step);
  } catch {
    throw new ApiFailure(400, `not a path: ${JSON.stringify(step)}`);
  }
}

function verbOf(method: string, name: string | undefined, query: URLSearchParams): Verb {
  const watching = ["1", "true"].includes(query.get("watch") ?? "");
  const one = name !== undefined;
  switch (method) {
    case "GET":
      return watching ? "watch" : one ? "get" : "list";
    case "POST":
      if (!one) return "create";
      break;
    case "PUT":
      if (one) return "update";
      break;
    case "PATCH":
      if (one) return "patch";
      break;
    case "DELETE":
      return one ? "delete" : "deletecollection";
  }
  throw new ApiFailure(405, "the server does not allow this method on the requested resource");
}

async function readBody(incoming: IncomingMessage, maxBody: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of incoming as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > maxBody) throw new ApiFailure(413, `Request entity too large: limit is ${maxBody}`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}

function parseBody(bytes: Buffer, contentType: string): unknown {
  if (bytes.length === 0) return undefined;
  if (contentType.startsWith(PROTOBUF)) return parseProtobuf(bytes);
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch {
    throw new ApiFailure(400, "the body of the request is no JSON");
  }
}
