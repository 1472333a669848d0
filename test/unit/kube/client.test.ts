// SPDX-License-Identifier: Apache-2.0
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import { systemClock } from "../../../src/core/clock.ts";
import { KubeClient } from "../../../src/kube/client.ts";
import { type CredentialSource, inClusterCredentials } from "../../../src/kube/credentials.ts";
import { kubeconfigCredentials } from "../../../src/kube/kubeconfig.ts";
import type { ApiServerOptions } from "../../../src/sandbox/apiserver/api-server.ts";
import { FaultyApiServer, isVerb } from "../../fakes/apiserver.ts";
import { LogRecorder } from "../../support/recorder.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";
import { until } from "./until.ts";

const GET = { method: "GET", path: "/api/v1/namespaces/shop", timeoutMs: 5_000 } as const;
const ADMIN = { user: "admin", token: "first", rules: "admin" } as const;

function clientOf(credentials: CredentialSource): KubeClient {
  return new KubeClient({ credentials, clock: systemClock, logger: new LogRecorder(), userAgent: "test/1" });
}

async function start(options: ApiServerOptions) {
  const server = new FaultyApiServer(options);
  await server.start();
  server.put({ kind: "Namespace", metadata: { name: "shop" } });
  const scratch = new ScratchDir();
  const open: KubeClient[] = [];
  return {
    server,
    scratch,
    client(credentials: CredentialSource): KubeClient {
      const client = clientOf(credentials);
      open.push(client);
      return client;
    },
    /** As kubelet mounts it. */
    async account(): Promise<string> {
      const directory = scratch.file("sa");
      await server.serviceAccount(directory, "istio-system");
      return directory;
    },
    inCluster(directory: string): CredentialSource {
      return inClusterCredentials({ host: "127.0.0.1", port: String(server.port), directory });
    },
    async [Symbol.asyncDispose]() {
      for (const client of open) await client.close();
      await server.close();
      scratch[Symbol.dispose]();
    },
  };
}

test("over TLS with a service account", async () => {
  await using t = await start({ accounts: [ADMIN] });
  const client = t.client(t.inCluster(await t.account()));
  expect(await client.request(GET)).toMatchObject({ kind: "Namespace", metadata: { name: "shop" } });
});

test("over TLS with a kubeconfig", async () => {
  await using t = await start({ accounts: [ADMIN] });
  await t.server.kubeconfig(t.scratch.file("config"));
  const client = t.client(kubeconfigCredentials(t.scratch.file("config")));
  expect(await client.request(GET)).toMatchObject({ metadata: { name: "shop" } });
});

test("an IPv6 literal as the server's address", async () => {
  await using t = await start({ accounts: [ADMIN], host: "::1" });
  await t.server.kubeconfig(t.scratch.file("config"));
  const client = t.client(kubeconfigCredentials(t.scratch.file("config")));
  expect(await client.request(GET)).toMatchObject({ metadata: { name: "shop" } });
});

test("a server that another authority vouches for gets no request and no token", async () => {
  await using t = await start({ accounts: [ADMIN] });
  await using other = await start({ accounts: [ADMIN] });
  const directory = await other.account();
  const client = t.client(t.inCluster(directory));
  await expect(client.request(GET)).rejects.toMatchObject({ code: "KUBE_UNREACHABLE" });
  expect(t.server.requests).toHaveLength(0);
});

test("a name that the certificate does not carry is refused", async () => {
  await using t = await start({ accounts: [ADMIN] });
  await t.account();
  const credentials = inClusterCredentials({
    host: "localhost",
    port: String(t.server.port),
    directory: t.scratch.file("sa"),
  });
  await expect(t.client(credentials).request(GET)).rejects.toThrow(/altnames|certificate/i);
});

test("a rotated token is used at once when the old one is refused", async () => {
  await using t = await start({ accounts: [{ ...ADMIN, token: "second" }] });
  const directory = await t.account();
  writeFileSync(`${directory}/token`, "first");
  const client = t.client(t.inCluster(directory));
  await expect(client.request(GET)).rejects.toMatchObject({ code: "KUBE_UNAUTHORIZED", status: 401 });
  // The file did not change: no second request with the same token.
  expect(t.server.requests.map(({ authorization }) => authorization)).toEqual(["Bearer first"]);
  writeFileSync(`${directory}/token`, "second");
  expect(await client.request(GET)).toMatchObject({ kind: "Namespace" });
  expect(t.server.requests.map(({ authorization }) => authorization)).toEqual([
    "Bearer first",
    "Bearer first",
    "Bearer second",
  ]);
});

test("a rotated authority is used for the next connection", async () => {
  await using t = await start({ accounts: [ADMIN] });
  await using other = await start({ accounts: [ADMIN] });
  const directory = await t.account();
  const right = t.server.authority ?? "";
  writeFileSync(`${directory}/ca.crt`, other.server.authority ?? "");
  let minute = 0;
  const client = new KubeClient({
    credentials: t.inCluster(directory),
    clock: { now: () => minute * 60_000, after: systemClock.after },
    logger: new LogRecorder(),
    userAgent: "test",
  });
  await expect(client.request(GET)).rejects.toMatchObject({ code: "KUBE_UNREACHABLE" });
  writeFileSync(`${directory}/ca.crt`, right);
  minute = 1;
  expect(await client.request(GET)).toMatchObject({ kind: "Namespace" });
  await client.close();
});

test("a refusal carries what the server said, and a remedy", async () => {
  await using t = await start({ accounts: [{ user: "agent", token: "t", rules: [] }] });
  const client = t.client(t.inCluster(await t.account()));
  await expect(client.request(GET)).rejects.toMatchObject({
    code: "KUBE_FORBIDDEN",
    status: 403,
    reason: "Forbidden",
    message: expect.stringContaining('User "agent" cannot get resource "namespaces"'),
    remedy: expect.stringContaining("ClusterRole"),
  });
});

test("Retry-After is heeded up to a minute", async () => {
  await using t = await start({ tls: false });
  const client = t.client(plain(t.server.url));
  for (const [retryAfter, expected] of [
    [7, 7_000],
    [99_999, 60_000],
  ] as const) {
    t.server.fail({ when: isVerb("get"), fault: { kind: "status", code: 429, retryAfter }, times: 1 });
    await expect(client.request(GET)).rejects.toMatchObject({ code: "KUBE_THROTTLED", retryAfterMs: expected });
  }
});

test("no answer within the deadline", async () => {
  await using t = await start({ tls: false });
  t.server.fail({ when: isVerb("get"), fault: { kind: "hang" } });
  const client = t.client(plain(t.server.url));
  await expect(client.request({ ...GET, timeoutMs: 50 })).rejects.toMatchObject({
    code: "KUBE_TIMEOUT",
    message: "GET /api/v1/namespaces/shop: no complete answer within 0.05 s",
  });
});

test("headers but no body within the deadline", async () => {
  await using t = await start({ tls: false });
  t.server.fail({ when: isVerb("get"), fault: { kind: "silence" } });
  const client = t.client(plain(t.server.url));
  await expect(client.request({ ...GET, timeoutMs: 50 })).rejects.toMatchObject({ code: "KUBE_TIMEOUT" });
});

test("a caller's signal breaks a call off, before and during it", async () => {
  await using t = await start({ tls: false });
  t.server.fail({ when: isVerb("get"), fault: { kind: "hang" } });
  const client = t.client(plain(t.server.url));
  await expect(client.request({ ...GET, signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "KUBE_STOPPED" });
  expect(t.server.requests).toHaveLength(0);
  const abort = new AbortController();
  const call = client.request({ ...GET, signal: abort.signal });
  const outcome = expect(call).rejects.toMatchObject({ code: "KUBE_STOPPED" });
  await until(() => t.server.requests.length === 1, "no request");
  abort.abort();
  await outcome;
});

test("a body that is larger than anything sensible is not kept", async () => {
  const block = Buffer.alloc(1024 * 1024, 0x20);
  await using raw = await rawServer((_request, response) => {
    let left = 9;
    const more = () => {
      while (left-- > 0) if (!response.write(block)) return void response.once("drain", more);
      response.end();
    };
    more();
  });
  const client = clientOf(plain(raw.url));
  await expect(client.request(GET)).rejects.toMatchObject({ code: "KUBE_BODY_TOO_LARGE" });
  await client.close();
});

test("a connection that the server closed while it was idle is no failure", async () => {
  const ports: (number | undefined)[] = [];
  await using raw = await rawServer((request, response) => {
    ports.push(request.socket.remotePort);
    // Closed under the feet of whoever reuses it.
    if (ports.length === 2) request.socket.resetAndDestroy();
    else response.end('{"ok":true}');
  });
  const client = clientOf(plain(raw.url));
  expect(await client.request(GET)).toEqual({ ok: true });
  expect(await client.request(GET)).toEqual({ ok: true });
  expect(ports[1]).toBe(ports[0]);
  expect(ports[2]).not.toBe(ports[0]);
  await client.close();
});

test.each([
  GET,
  { ...GET, method: "PATCH", body: { metadata: { uid: "u" } }, contentType: "application/merge-patch+json" } as const,
])(
  "connections that the server ended and reset while we were busy: $method goes out once more on a new one",
  async (call) => {
    // In a thread of its own, so that this one doesn't notice what it does before it writes.
    const closed = new Int32Array(new SharedArrayBuffer(4));
    const server = new Worker(CLOSING_SERVER, { eval: true, workerData: closed });
    try {
      const [port] = await once(server, "message");
      const client = clientOf(plain(`http://127.0.0.1:${port}`));
      const answers = [client.request(GET), client.request(GET)];
      expect(await Promise.all(answers)).toEqual([{ served: 1 }, { served: 2 }]);
      server.postMessage("close");
      Atomics.wait(closed, 0, 0, 10_000);
      expect(closed[0]).toBe(1);
      expect(await client.request(call)).toEqual({ served: 3 });
      await client.close();
    } finally {
      await server.terminate();
    }
  },
);

/** On demand closes its connections and says so; each with an end and then a reset, so that a write gets EPIPE. */
const CLOSING_SERVER = `
  const { parentPort, workerData } = require("node:worker_threads");
  const sockets = new Set();
  let served = 0;
  const server = require("node:http").createServer((request, response) => {
    sockets.add(request.socket);
    request.resume().on("end", () => response.end(JSON.stringify({ served: ++served })));
  });
  server.listen(0, "127.0.0.1", () => parentPort.postMessage(server.address().port));
  parentPort.on("message", async () => {
    await Promise.all([...sockets].map((socket) => new Promise((resolve) => {
      socket.end(() => socket.resetAndDestroy().once("close", resolve));
    })));
    Atomics.store(workerData, 0, 1);
    Atomics.notify(workerData, 0);
  });
`;

test("a fresh connection that is reset is a failure", async () => {
  await using raw = await rawServer((request) => request.socket.resetAndDestroy());
  const client = clientOf(plain(raw.url));
  await expect(client.request(GET)).rejects.toMatchObject({ code: "KUBE_UNREACHABLE" });
  await client.close();
});

test("close ends calls and watches under way and refuses new ones", async () => {
  await using t = await start({ accounts: [ADMIN] });
  const client = clientOf(t.inCluster(await t.account()));
  const stream = await client.stream({ ...GET, path: "/api/v1/pods", query: { watch: "1" } }, true);
  await until(() => t.server.openWatches === 1, "no watch");
  const reading = (async () => {
    for await (const chunk of stream.chunks) throw new Error(`nothing happened, yet it brought ${chunk}`);
  })();
  const ended = expect(reading).rejects.toMatchObject({ code: "KUBE_STOPPED" });
  t.server.fail({ when: isVerb("get"), fault: { kind: "hang" } });
  const call = expect(client.request(GET)).rejects.toMatchObject({ code: "KUBE_STOPPED" });
  await until(() => t.server.requests.length === 2, "no call");
  await client.close();
  await Promise.all([ended, call]);
  await until(() => t.server.openWatches === 0, "the watch is still open");
  await expect(client.request(GET)).rejects.toMatchObject({ code: "KUBE_STOPPED" });
});

test("two hundred calls at once share at most sixteen connections", async () => {
  const ports = new Set<number | undefined>();
  await using raw = await rawServer((request, response) => {
    ports.add(request.socket.remotePort);
    response.end("{}");
  });
  const client = clientOf(plain(raw.url));
  await Promise.all(Array.from({ length: 200 }, () => client.request(GET)));
  expect(ports.size).toBeLessThanOrEqual(16);
  await client.close();
});

test("a server address with a path, as behind a proxy of clusters", async () => {
  const paths: (string | undefined)[] = [];
  await using raw = await rawServer((request, response) => {
    paths.push(request.url);
    response.end("{}");
  });
  const client = clientOf(plain(`${raw.url}/k8s/clusters/c-1/`));
  await client.request({ ...GET, query: { fieldSelector: "a=b,c=d", absent: undefined } });
  expect(paths).toEqual(["/k8s/clusters/c-1/api/v1/namespaces/shop?fieldSelector=a%3Db%2Cc%3Dd"]);
  await client.close();
});

test("credentials that can't be read are told at once", async () => {
  using scratch = new ScratchDir();
  mkdirSync(scratch.file("sa"));
  const client = clientOf(inClusterCredentials({ host: "127.0.0.1", port: "1", directory: scratch.file("sa") }));
  await expect(client.verifyCredentials()).rejects.toThrow(scratch.file("sa"));
  await client.close();
});

function plain(url: string): CredentialSource {
  return { origin: "test", load: async () => ({ server: new URL(url), headers: {}, tls: undefined }) };
}

async function rawServer(handler: Parameters<typeof createServer>[1] & object) {
  const server: Server = createServer(handler);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    server,
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
}
