// SPDX-License-Identifier: Apache-2.0
import type { ServerResponse } from "node:http";
import { recordOf, textOf } from "../../kube/json.ts";
import { type Account, authorize } from "./access.ts";
import { discovery } from "./discovery.ts";
import { ApiFailure } from "./failure.ts";
import { Lister } from "./listing.ts";
import type { KubeObject } from "./object.ts";
import type { ObjectStore } from "./object-store.ts";
import type { Registry } from "./registry.ts";
import type { ApiRequest, ApiTarget } from "./request.ts";
import { apiVersionOf, type Resource } from "./resources.ts";
import { type Selection, selection } from "./selection.ts";
import { tableOf } from "./table.ts";
import { type WatchLineType, WatchSession } from "./watch-session.ts";

export interface HandlerOptions {
  readonly store: ObjectStore;
  readonly registry: Registry;
  readonly bookmarkPeriodMs: number;
  readonly writeWatchLine: (response: ServerResponse, type: WatchLineType, line: string) => void;
}

const DEFAULT_WATCH_SECONDS = 1800;

/** Answers requests from the store. @throws ApiFailure for every answer that is no success. */
export class Handler {
  readonly watches = new Set<WatchSession>();
  readonly #options: HandlerOptions;
  readonly #lister: Lister;

  constructor(options: HandlerOptions) {
    this.#options = options;
    this.#lister = new Lister(options.store);
  }

  answer(request: ApiRequest, account: Account | undefined, response: ServerResponse): void {
    const { target } = request;
    if (target === undefined) {
      sendJson(response, 200, outsideResources(request));
      return;
    }
    authorize(account, target);
    if (target.verb === "watch") {
      this.#watch(request, target, response);
      return;
    }
    sendJson(response, target.verb === "create" ? 201 : 200, this.#perform(request, target));
  }

  #perform(request: ApiRequest, target: ApiTarget): unknown {
    const { registry } = this.#options;
    const { verb, resource, namespace, name = "", subresource } = target;
    const { body, contentType } = request;
    switch (verb) {
      case "get":
        return rendered(request, resource, registry.get(resource, namespace, name));
      case "list":
        return this.#list(request, target);
      case "create":
        return rendered(request, resource, registry.create(resource, namespace, body));
      case "update":
        return rendered(request, resource, registry.update(resource, namespace, name, subresource, body));
      case "patch":
        return rendered(request, resource, registry.patch(resource, namespace, name, subresource, contentType, body));
      case "delete":
        return this.#delete(request, resource, namespace, name);
      case "deletecollection":
        return this.#deleteAll(request, target);
      case "watch":
        throw new ApiFailure(500, "a watch has no single answer");
    }
  }

  #list(request: ApiRequest, target: ApiTarget): unknown {
    const { resource, namespace } = target;
    const { query } = request;
    const page = this.#lister.list({
      resource,
      namespace,
      select: selectionOf(request, target),
      limit: query.get("limit") ?? undefined,
      continue: query.get("continue") || undefined,
      resourceVersion: query.get("resourceVersion") ?? undefined,
    });
    const metadata = {
      resourceVersion: page.resourceVersion,
      ...(page.continue === undefined ? {} : { continue: page.continue, remainingItemCount: page.remaining }),
    };
    if (request.table) {
      return tableOf(resource, page.items, metadata, query.get("includeObject") ?? undefined, new Date());
    }
    return { kind: `${resource.kind}List`, apiVersion: apiVersionOf(resource), metadata, items: page.items };
  }

  #watch(request: ApiRequest, target: ApiTarget, response: ServerResponse): void {
    const { resource, namespace } = target;
    const { query } = request;
    const { store, bookmarkPeriodMs, writeWatchLine } = this.#options;
    const session = new WatchSession(
      {
        resource,
        namespace,
        select: selectionOf(request, target),
        resourceVersion: query.get("resourceVersion") ?? undefined,
        bookmarks: isTrue(query.get("allowWatchBookmarks")),
        initialEvents: isTrue(query.get("sendInitialEvents")),
        timeoutSeconds: Number(query.get("timeoutSeconds") ?? 0) || DEFAULT_WATCH_SECONDS,
        render: (object) => rendered(request, resource, object),
      },
      { store, response, bookmarkPeriodMs, write: writeWatchLine },
    );
    session.start();
    this.watches.add(session);
    response.once("close", () => this.watches.delete(session));
  }

  #delete(request: ApiRequest, resource: Resource, namespace: string | undefined, name: string): unknown {
    const { registry, store } = this.#options;
    const options = recordOf(request.body);
    const preconditions = recordOf(options.preconditions);
    const grace = options.gracePeriodSeconds ?? request.query.get("gracePeriodSeconds") ?? undefined;
    const object = registry.delete(resource, namespace, name, {
      uid: textOf(preconditions.uid) || undefined,
      resourceVersion: textOf(preconditions.resourceVersion) || undefined,
      gracePeriodSeconds: grace === undefined ? undefined : Number(grace),
    });
    // Still there: it is terminating, and the client wants to see how.
    if (store.get(resource, namespace, name) !== undefined) return object;
    return { ...SUCCESS, details: { name, kind: resource.plural, uid: object.metadata.uid } };
  }

  #deleteAll(request: ApiRequest, target: ApiTarget): unknown {
    const { resource, namespace } = target;
    const select = selectionOf(request, target);
    for (const { metadata } of this.#options.store.list(resource, namespace).filter(select)) {
      this.#delete(request, resource, metadata.namespace, metadata.name);
    }
    return SUCCESS;
  }
}

const SUCCESS = { kind: "Status", apiVersion: "v1", metadata: {}, status: "Success" } as const;

export function sendFailure(response: ServerResponse, failure: ApiFailure): void {
  const { retryAfterSeconds } = failure.details;
  if (retryAfterSeconds !== undefined) response.setHeader("retry-after", String(retryAfterSeconds));
  sendJson(response, failure.code, failure.toStatus());
}

function rendered(request: ApiRequest, resource: Resource, object: KubeObject): unknown {
  if (!request.table) return object;
  const metadata = { resourceVersion: object.metadata.resourceVersion };
  return tableOf(resource, [object], metadata, request.query.get("includeObject") ?? undefined, new Date());
}

function selectionOf(request: ApiRequest, target: ApiTarget): Selection {
  const { query } = request;
  const { resource, name } = target;
  const select = selection(resource, query.get("labelSelector") ?? undefined, query.get("fieldSelector") ?? undefined);
  return name === undefined ? select : (object) => object.metadata.name === name && select(object);
}

function isTrue(value: string | null): boolean {
  return value === "true" || value === "1";
}

function outsideResources(request: ApiRequest): unknown {
  if (["/healthz", "/livez", "/readyz"].includes(request.path)) return "ok";
  const document = request.method === "GET" ? discovery(request.path.replace(/\/$/, "")) : undefined;
  if (document === undefined) throw new ApiFailure(404, "the server could not find the requested resource");
  return document;
}

function sendJson(response: ServerResponse, code: number, body: unknown): void {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  response.writeHead(code, {
    "content-type": typeof body === "string" ? "text/plain" : "application/json",
    "content-length": Buffer.byteLength(text),
  });
  response.end(text);
}
