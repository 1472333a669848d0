// SPDX-License-Identifier: Apache-2.0
import { mkdir, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, isIPv6 } from "node:net";
import { join } from "node:path";
import { messageOf } from "../../core/errors.ts";
import { type Account, authenticate } from "./access.ts";
import { ApiFailure } from "./failure.ts";
import { Handler, sendFailure } from "./handler.ts";
import { type KubeInput, type KubeObject, kubeTime } from "./object.ts";
import { ObjectStore, type StoreEvent } from "./object-store.ts";
import { Registry } from "./registry.ts";
import { type ApiRequest, parseRequest } from "./request.ts";
import { apiVersionOf, RESOURCES, type Resource, resourceOfKind } from "./resources.ts";
import { type ServerCertificate, serverCertificate } from "./server-certificate.ts";
import { validateMetadata } from "./validate.ts";
import type { WatchLineType } from "./watch-session.ts";

export interface ApiServerOptions {
  /** Address to listen on, default 127.0.0.1. */
  readonly host?: string;
  /** Default: any free one. */
  readonly port?: number;
  /** Further addresses and names for the certificate. */
  readonly names?: readonly string[];
  /** Default true; kubectl sends tokens over TLS only. */
  readonly tls?: boolean;
  /** Default none: everybody may do everything. */
  readonly accounts?: readonly Account[];
  /** Default false; see RegistryOptions. */
  readonly gracefulPods?: boolean;
  /** Default a minute, as the real server. */
  readonly bookmarkPeriodMs?: number;
}

const MAX_BODY = 3 * 1024 * 1024;

/** A Kubernetes API server in memory: enough of one for the agent, and for a person with kubectl. */
export class ApiServer {
  readonly #options: ApiServerOptions;
  readonly #store = new ObjectStore();
  readonly #registry: Registry;
  readonly #handler: Handler;
  readonly #certificate: ServerCertificate | undefined;
  readonly #server: Server;

  constructor(options: ApiServerOptions = {}) {
    this.#options = options;
    this.#registry = new Registry(this.#store, {
      gracefulPods: options.gracefulPods ?? false,
      now: () => new Date(),
    });
    this.#handler = new Handler({
      store: this.#store,
      registry: this.#registry,
      bookmarkPeriodMs: options.bookmarkPeriodMs ?? 60_000,
      writeWatchLine: (response, type, line) => this.writeWatchLine(response, type, line),
    });
    const { host = "127.0.0.1", names = [], tls = true } = options;
    this.#certificate = tls ? serverCertificate([...new Set([host, ...names])]) : undefined;
    const serve = (request: IncomingMessage, response: ServerResponse) => void this.#serve(request, response);
    this.#server =
      this.#certificate === undefined
        ? createServer(serve)
        : createTlsServer({ key: this.#certificate.key, cert: this.#certificate.certificate }, serve);
    // A watch is one request that lasts for many minutes.
    this.#server.requestTimeout = 0;
    this.#server.keepAliveTimeout = 60_000;
  }

  /** @throws Error (EADDRINUSE, ...) when it can't listen. */
  async start(): Promise<void> {
    const { host = "127.0.0.1", port = 0 } = this.#options;
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(port, host, () => {
        this.#server.off("error", reject);
        resolve();
      });
    });
  }

  /** Ends all watches and connections. */
  async close(): Promise<void> {
    for (const watch of this.#handler.watches) watch.end();
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Such as `https://127.0.0.1:36543`. */
  get url(): string {
    const { host = "127.0.0.1" } = this.#options;
    const scheme = this.#certificate === undefined ? "http" : "https";
    return `${scheme}://${isIPv6(host) ? `[${host}]` : host}:${this.port}`;
  }

  /** PEM of the authority that signed the server's certificate; undefined without TLS. */
  get authority(): string | undefined {
    return this.#certificate?.authority;
  }

  get resourceVersion(): string {
    return String(this.#store.version);
  }

  /** Creates or replaces an object, status included. The uid stays unless one is given. */
  put(input: KubeInput): KubeObject {
    const resource = known(input.kind);
    const namespace = resource.namespaced ? (input.metadata.namespace ?? "default") : undefined;
    const name = input.metadata.name ?? "";
    const current = this.#store.get(resource, namespace, name);
    if (current === undefined && input.metadata.uid === undefined) {
      return this.#registry.create(resource, namespace, input);
    }
    const metadata = {
      creationTimestamp: kubeTime(new Date()),
      uid: "",
      ...current?.metadata,
      ...input.metadata,
      name,
      resourceVersion: "",
      ...(namespace === undefined ? {} : { namespace }),
    };
    validateMetadata(resource, metadata);
    return this.#store.put(resource, { ...current, ...input, apiVersion: apiVersionOf(resource), metadata });
  }

  get(kind: string, namespace: string | undefined, name: string): KubeObject | undefined {
    return this.#store.get(known(kind), namespace, name);
  }

  list(kind: string, namespace?: string): readonly KubeObject[] {
    return this.#store.list(known(kind), namespace);
  }

  /** Removes at once, whatever the grace period; false when there was nothing. */
  delete(kind: string, namespace: string | undefined, name: string): boolean {
    if (this.get(kind, namespace, name) === undefined) return false;
    this.#registry.delete(known(kind), namespace, name, { gracePeriodSeconds: 0 });
    return true;
  }

  /** Called after each change of any object; returns what ends that. */
  onChange(listener: (event: StoreEvent) => void): () => void {
    return this.#store.listen(listener);
  }

  /** Forgets history, as etcd does every five minutes: readers from before get 410. */
  compact(): void {
    this.#store.compact();
  }

  /** Sends a bookmark on every open watch that asked for them. */
  bookmark(): void {
    for (const watch of this.#handler.watches) watch.bookmark();
  }

  /** Sends an ERROR event on every open watch and ends it. */
  failWatches(failure: ApiFailure): void {
    for (const watch of this.#handler.watches) watch.fail(failure);
  }

  /** Ends every open watch cleanly, as a server does that shuts down. */
  endWatches(): void {
    for (const watch of this.#handler.watches) watch.end();
  }

  get openWatches(): number {
    return this.#handler.watches.size;
  }

  /** Writes a kubeconfig of mode 0600 for one account (default: the first). */
  async kubeconfig(path: string, user?: string): Promise<void> {
    const account = this.#accountOf(user);
    const cluster = {
      server: this.url,
      ...(this.authority === undefined
        ? {}
        : { "certificate-authority-data": Buffer.from(this.authority).toString("base64") }),
    };
    // JSON is YAML.
    const config = {
      apiVersion: "v1",
      kind: "Config",
      clusters: [{ name: "sandbox", cluster }],
      users: [{ name: "user", user: account === undefined ? {} : { token: account.token } }],
      contexts: [{ name: "sandbox", context: { cluster: "sandbox", user: "user", namespace: "default" } }],
      "current-context": "sandbox",
    };
    await writeFile(path, `${JSON.stringify(config, null, 2)}\n`, { mode: 0o600 });
  }

  /** Writes `token`, `ca.crt` and `namespace` as kubelet mounts them into a pod. */
  async serviceAccount(directory: string, namespace: string, user?: string): Promise<void> {
    await mkdir(directory, { recursive: true });
    await writeFile(join(directory, "token"), this.#accountOf(user)?.token ?? "none", { mode: 0o600 });
    await writeFile(join(directory, "ca.crt"), this.authority ?? "");
    await writeFile(join(directory, "namespace"), namespace);
  }

  /** For subclasses: true when it has answered, or will never answer, by itself. */
  protected async intercept(_request: ApiRequest, _response: ServerResponse): Promise<boolean> {
    return false;
  }

  /** For subclasses: how a line of a watch goes out. */
  protected writeWatchLine(response: ServerResponse, _type: WatchLineType, line: string): void {
    response.write(line);
  }

  #accountOf(user: string | undefined): Account | undefined {
    const accounts = this.#options.accounts ?? [];
    if (user === undefined) return accounts[0];
    const account = accounts.find((candidate) => candidate.user === user);
    if (account === undefined) throw new Error(`no such account: ${user}`);
    return account;
  }

  async #serve(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    // A client that resets its connection is no event here.
    response.on("error", () => undefined);
    try {
      const request = await parseRequest(incoming, MAX_BODY);
      if (await this.intercept(request, response)) return;
      const account = authenticate(this.#options.accounts ?? [], incoming.headers.authorization);
      this.#handler.answer(request, account, response);
    } catch (error) {
      const failure = error instanceof ApiFailure ? error : new ApiFailure(500, messageOf(error));
      if (response.headersSent || response.destroyed) response.destroy();
      else sendFailure(response, failure);
    }
  }
}

function known(kind: string): Resource {
  const resource = resourceOfKind(kind);
  if (resource === undefined) throw new Error(`this API server knows no ${kind}, only ${RESOURCES.map((r) => r.kind)}`);
  return resource;
}
