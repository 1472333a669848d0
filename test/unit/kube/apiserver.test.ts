// SPDX-License-Identifier: Apache-2.0
// The embedded API server, by raw HTTP: what kubectl and a client library would see.
import { afterEach, beforeEach, expect, test } from "vitest";
import { FaultyApiServer } from "../../fakes/apiserver.ts";
import { type Answer, call } from "./api-client.ts";
import { until } from "./until.ts";

const PODS = "/api/v1/namespaces/shop/pods";
const MERGE = { "content-type": "application/merge-patch+json" };
const TABLE = { accept: "application/json;as=Table;v=v1;g=meta.k8s.io,application/json" };

let server: FaultyApiServer;

beforeEach(async () => {
  server = new FaultyApiServer({ tls: false });
  await server.start();
  server.put({ kind: "Namespace", metadata: { name: "shop" } });
});
afterEach(() => server.close());

const send = (method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer> =>
  call(server.url, method, path, body, headers);

function pod(name: string, labels: Record<string, string> = {}, nodeName = "node1") {
  return { apiVersion: "v1", kind: "Pod", metadata: { name, labels }, spec: { nodeName, containers: [{ name: "x" }] } };
}

test("create, read, list, delete", async () => {
  const created = await send("POST", PODS, pod("a"));
  expect(created.status).toBe(201);
  expect(created.body).toMatchObject({
    kind: "Pod",
    metadata: {
      name: "a",
      namespace: "shop",
      uid: expect.stringMatching(/^[0-9a-f-]{36}$/),
      resourceVersion: expect.stringMatching(/^\d+$/),
      creationTimestamp: expect.stringMatching(/^\d{4}-.*Z$/),
    },
    spec: { serviceAccountName: "default" },
    status: { phase: "Pending" },
  });
  expect((await send("GET", `${PODS}/a`)).body).toEqual(created.body);
  expect((await send("GET", "/api/v1/pods")).body).toMatchObject({
    kind: "PodList",
    apiVersion: "v1",
    metadata: { resourceVersion: server.resourceVersion },
    items: [created.body],
  });
  const deleted = await send("DELETE", `${PODS}/a`);
  expect(deleted).toMatchObject({
    status: 200,
    body: { status: "Success", details: { uid: created.body.metadata.uid } },
  });
  expect(await send("GET", `${PODS}/a`)).toMatchObject({
    status: 404,
    body: { kind: "Status", status: "Failure", reason: "NotFound", message: 'pods "a" not found', code: 404 },
  });
});

test.each<[string, string, string, unknown, number, string]>([
  ["twice the same name", "POST", PODS, pod("twice"), 409, "AlreadyExists"],
  ["no such namespace", "POST", "/api/v1/namespaces/none/pods", pod("a"), 404, "NotFound"],
  ["a name that is none", "POST", PODS, pod("A_b"), 422, "Invalid"],
  ["no name", "POST", PODS, { metadata: {} }, 422, "Invalid"],
  ["a label key that is none", "POST", PODS, pod("a", { "bad key": "x" }), 422, "Invalid"],
  ["a label value that is none", "POST", PODS, pod("a", { key: "-x" }), 422, "Invalid"],
  ["a label value that is too long", "POST", PODS, pod("a", { key: "x".repeat(64) }), 422, "Invalid"],
  ["a label that is no string", "POST", PODS, { metadata: { name: "a", labels: { a: 1 } } }, 422, "Invalid"],
  ["annotations that are too long", "POST", PODS, annotated("x".repeat(262_145)), 422, "Invalid"],
  ["another kind", "POST", PODS, { kind: "Service", metadata: { name: "a" } }, 400, "BadRequest"],
  ["another namespace", "POST", PODS, { metadata: { name: "a", namespace: "b" } }, 400, "BadRequest"],
  ["no object", "POST", PODS, [], 400, "BadRequest"],
  ["no JSON", "POST", PODS, "{", 400, "BadRequest"],
  ["a body that is too large", "POST", PODS, `"${"x".repeat(3 * 1024 * 1024)}"`, 413, "RequestEntityTooLarge"],
  ["an unknown resource", "GET", "/api/v1/secrets", undefined, 404, "NotFound"],
  ["an unknown group", "GET", "/apis/batch/v1/jobs", undefined, 404, "NotFound"],
  ["an unknown subresource", "GET", `${PODS}/twice/log`, undefined, 404, "NotFound"],
  ["a path that goes on", "GET", `${PODS}/twice/status/x`, undefined, 404, "NotFound"],
  ["a namespaced object outside", "GET", "/api/v1/pods/twice", undefined, 404, "NotFound"],
  ["a method that is not allowed", "POST", `${PODS}/twice`, {}, 405, "MethodNotAllowed"],
  ["a field selector that is not known", "GET", "/api/v1/pods?fieldSelector=spec.foo=1", undefined, 400, "BadRequest"],
  ["a label selector that is none", "GET", "/api/v1/pods?labelSelector=a%20b", undefined, 400, "BadRequest"],
  ["a limit that is none", "GET", "/api/v1/pods?limit=x", undefined, 400, "BadRequest"],
  ["a version that is none", "GET", "/api/v1/pods?watch=1&resourceVersion=x", undefined, 400, "BadRequest"],
  ["a version of the future", "GET", "/api/v1/pods?watch=1&resourceVersion=999999", undefined, 504, "Timeout"],
  ["a list of the future", "GET", "/api/v1/pods?resourceVersion=999999", undefined, 504, "Timeout"],
])("refused: %s", async (_what, method, path, body, status, reason) => {
  await send("POST", PODS, pod("twice"));
  expect(await send(method, path, body)).toMatchObject({ status, body: { kind: "Status", code: status, reason } });
});

function annotated(value: string) {
  return { metadata: { name: "a", annotations: { a: value } } };
}

test("generateName", async () => {
  const { body } = await send("POST", PODS, { metadata: { generateName: "web-" } });
  expect(body.metadata.name).toMatch(/^web-[0-9a-f]{5}$/);
});

test.each([
  ["app=a", ["a"]],
  ["app==a", ["a"]],
  ["app!=a", ["b", "c"]],
  ["app in (a, b)", ["a", "b"]],
  ["app notin (a,b)", ["c"]],
  ["app", ["a", "b"]],
  ["!app", ["c"]],
  ["app,tier=web", ["b"]],
  ["tier in (web),app notin (a)", ["b"]],
])("label selector %s", async (selector, names) => {
  await send("POST", PODS, pod("a", { app: "a" }));
  await send("POST", PODS, pod("b", { app: "b", tier: "web" }));
  await send("POST", PODS, pod("c"));
  const { body } = await send("GET", `/api/v1/pods?labelSelector=${encodeURIComponent(selector)}`);
  expect(namesOf(body)).toEqual(names);
});

test.each([
  ["spec.nodeName=node1", ["a"]],
  ["spec.nodeName!=node1", ["b"]],
  ["metadata.name=b", ["b"]],
  ["metadata.namespace=shop,spec.nodeName=node2", ["b"]],
  ["status.phase=Running", []],
])("field selector %s", async (selector, names) => {
  await send("POST", PODS, pod("a"));
  await send("POST", PODS, pod("b", {}, "node2"));
  const { body } = await send("GET", `/api/v1/pods?fieldSelector=${encodeURIComponent(selector)}`);
  expect(namesOf(body)).toEqual(names);
});

test("pages come from one snapshot", async () => {
  for (const name of ["a", "b", "c", "d", "e"]) await send("POST", PODS, pod(name));
  const first = await send("GET", "/api/v1/pods?limit=2");
  expect(first.body.metadata).toMatchObject({ remainingItemCount: 3 });
  await send("DELETE", `${PODS}/c`);
  await send("POST", PODS, pod("cc"));
  const second = await send("GET", `/api/v1/pods?limit=2&continue=${first.body.metadata.continue}`);
  const third = await send("GET", `/api/v1/pods?limit=2&continue=${second.body.metadata.continue}`);
  expect([first, second, third].flatMap(({ body }) => namesOf(body))).toEqual(["a", "b", "c", "d", "e"]);
  expect(third.body.metadata).toEqual({ resourceVersion: first.body.metadata.resourceVersion });
  server.compact();
  const late = await send("GET", `/api/v1/pods?limit=2&continue=${first.body.metadata.continue}`);
  expect(late).toMatchObject({ status: 410, body: { reason: "Expired" } });
  const both = await send("GET", `/api/v1/pods?continue=x&resourceVersion=1`);
  expect(both.status).toBe(400);
});

test("a merge patch of pods/status changes status and metadata, never the spec", async () => {
  await send("POST", PODS, pod("a", { keep: "1", drop: "1" }));
  const patch = {
    metadata: { labels: { drop: null, add: "2" }, annotations: { n: "v" } },
    spec: { nodeName: "other" },
    status: { phase: "Running" },
  };
  const { status, body } = await send("PATCH", `${PODS}/a/status`, patch, MERGE);
  expect(status).toBe(200);
  expect(body.metadata.labels).toEqual({ keep: "1", add: "2" });
  expect(body.metadata.annotations).toEqual({ n: "v" });
  expect(body.spec.nodeName).toBe("node1");
  expect(body.status.phase).toBe("Running");
});

test("a patch of the pod itself never changes its status", async () => {
  await send("POST", PODS, pod("a"));
  const { body } = await send(
    "PATCH",
    `${PODS}/a`,
    { metadata: { labels: { x: "y" } }, status: { phase: "Failed" } },
    MERGE,
  );
  expect(body.status.phase).toBe("Pending");
  expect(body.metadata.labels).toEqual({ x: "y" });
});

test("where a pod runs is settled once", async () => {
  await send("POST", PODS, pod("a"));
  const moved = await send("PATCH", `${PODS}/a`, { spec: { nodeName: "node2" } }, MERGE);
  expect(moved).toMatchObject({ status: 422, body: { reason: "Invalid" } });
});

test("the uid in a patch is a precondition", async () => {
  const { body } = await send("POST", PODS, pod("a"));
  const patch = (uid: string) =>
    send("PATCH", `${PODS}/a/status`, { metadata: { uid, annotations: { x: "y" } } }, MERGE);
  const refused = await patch("00000000-0000-0000-0000-000000000000");
  expect(refused).toMatchObject({ status: 409, body: { reason: "Conflict" } });
  expect(refused.body.message).toContain(`UID in object meta: ${body.metadata.uid}`);
  expect((await patch(body.metadata.uid)).status).toBe(200);
});

test("the resourceVersion of an update is a precondition", async () => {
  const { body } = await send("POST", PODS, pod("a"));
  const changed = { ...body, metadata: { ...body.metadata, labels: { x: "y" } } };
  expect((await send("PUT", `${PODS}/a`, changed)).status).toBe(200);
  expect(await send("PUT", `${PODS}/a`, changed)).toMatchObject({ status: 409, body: { reason: "Conflict" } });
  const other = await send("PUT", `${PODS}/a`, { ...pod("b") });
  expect(other.status).toBe(400);
});

test("an update replaces what it leaves out, but not who the object is", async () => {
  const { body } = await send("POST", PODS, pod("a", { old: "1" }));
  const put = await send("PUT", `${PODS}/a`, { ...body, metadata: { name: "a", labels: { new: "1" } } });
  expect(put.body.metadata).toMatchObject({
    uid: body.metadata.uid,
    creationTimestamp: body.metadata.creationTimestamp,
    labels: { new: "1" },
  });
});

test("a change that changes nothing makes no version", async () => {
  await send("POST", PODS, pod("a", { x: "y" }));
  const before = server.resourceVersion;
  await send("PATCH", `${PODS}/a`, { metadata: { labels: { x: "y" } } }, MERGE);
  expect(server.resourceVersion).toBe(before);
});

test.each<[string, unknown[], Record<string, string> | number]>([
  ["add", [{ op: "add", path: "/metadata/labels/b~1c", value: "1" }], { a: "1", "b/c": "1" }],
  ["remove", [{ op: "remove", path: "/metadata/labels/a" }], {}],
  ["replace", [{ op: "replace", path: "/metadata/labels/a", value: "2" }], { a: "2" }],
  [
    "test, then replace",
    [
      { op: "test", path: "/metadata/labels/a", value: "1" },
      { op: "replace", path: "/metadata/labels", value: { z: "1" } },
    ],
    { z: "1" },
  ],
  ["copy", [{ op: "copy", from: "/metadata/labels/a", path: "/metadata/labels/b" }], { a: "1", b: "1" }],
  ["move", [{ op: "move", from: "/metadata/labels/a", path: "/metadata/labels/b" }], { b: "1" }],
  ["a test that fails", [{ op: "test", path: "/metadata/labels/a", value: "2" }], 422],
  ["a path that is absent", [{ op: "remove", path: "/metadata/labels/none" }], 422],
  ["an index that is absent", [{ op: "replace", path: "/spec/containers/7", value: {} }], 422],
  ["no pointer", [{ op: "add", path: "x", value: 1 }], 400],
  ["an unknown operation", [{ op: "spin", path: "/x" }], 400],
])("JSON patch: %s", async (_what, patch, expected) => {
  await send("POST", PODS, pod("a", { a: "1" }));
  const headers = { "content-type": "application/json-patch+json" };
  const answer = await send("PATCH", `${PODS}/a`, patch, headers);
  if (typeof expected === "number") expect(answer.status).toBe(expected);
  else expect(answer.body.metadata.labels).toEqual(expected);
});

test.each([
  ["application/strategic-merge-patch+json", { metadata: { labels: { x: "y" } } }, 200],
  ["application/strategic-merge-patch+json", { metadata: { $patch: "delete" } }, 400],
  ["application/apply-patch+yaml", { metadata: {} }, 415],
  ["application/merge-patch+json", [], 400],
])("patch as %s %j: %d", async (type, patch, status) => {
  await send("POST", PODS, pod("a"));
  expect((await send("PATCH", `${PODS}/a`, patch, { "content-type": type })).status).toBe(status);
});

test("delete with preconditions", async () => {
  const { body } = await send("POST", PODS, pod("a"));
  const remove = (preconditions: object) => send("DELETE", `${PODS}/a`, { preconditions });
  expect(await remove({ uid: "other" })).toMatchObject({ status: 409, body: { reason: "Conflict" } });
  expect(await remove({ resourceVersion: "1" })).toMatchObject({ status: 409 });
  expect((await remove({ uid: body.metadata.uid })).status).toBe(200);
});

test("a namespace takes its content along, and carries its name as a label", async () => {
  await send("POST", PODS, pod("a"));
  expect((await send("GET", "/api/v1/namespaces/shop")).body.metadata.labels).toEqual({
    "kubernetes.io/metadata.name": "shop",
  });
  expect((await send("DELETE", "/api/v1/namespaces/shop")).status).toBe(200);
  expect((await send("GET", "/api/v1/namespaces/shop")).status).toBe(404);
  expect(server.list("Pod")).toEqual([]);
});

test("deletion with grace marks the pod; a kubelet ends it; its namespace waits for it", async () => {
  const graceful = new FaultyApiServer({ tls: false, gracefulPods: true });
  await graceful.start();
  graceful.put({ kind: "Namespace", metadata: { name: "shop" } });
  await call(graceful.url, "POST", PODS, pod("a"));
  const marked = await call(graceful.url, "DELETE", `${PODS}/a`);
  expect(marked.body.metadata).toMatchObject({ deletionGracePeriodSeconds: 30, deletionTimestamp: expect.any(String) });
  const namespace = await call(graceful.url, "DELETE", "/api/v1/namespaces/shop");
  expect(namespace.body.status.phase).toBe("Terminating");
  expect((await call(graceful.url, "POST", PODS, pod("b"))).status).toBe(403);
  expect(graceful.delete("Pod", "shop", "a")).toBe(true);
  expect(graceful.get("Namespace", undefined, "shop")).toBeUndefined();
  expect(graceful.delete("Pod", "shop", "a")).toBe(false);
  await graceful.close();
});

test("delete of a collection heeds selectors", async () => {
  await send("POST", PODS, pod("a", { x: "1" }));
  await send("POST", PODS, pod("b"));
  await send("DELETE", `${PODS}?labelSelector=x`);
  expect(server.list("Pod").map(({ metadata }) => metadata.name)).toEqual(["b"]);
});

test("a watch replays history from its version, follows, and ends in time with a bookmark", async () => {
  await send("POST", PODS, pod("a"));
  const from = server.resourceVersion;
  await send("POST", PODS, pod("b"));
  const watching = send(
    "GET",
    `/api/v1/pods?watch=1&resourceVersion=${from}&allowWatchBookmarks=true&timeoutSeconds=1`,
  );
  await until(() => server.openWatches === 1, "no watch");
  await send("PATCH", `${PODS}/a`, { metadata: { labels: { x: "y" } } }, MERGE);
  await send("DELETE", `${PODS}/b`);
  const { body } = await watching;
  const told = body.map((event: { type: string; object: { metadata: { name?: string } } }) => [
    event.type,
    event.object.metadata.name,
  ]);
  expect(told).toEqual([
    ["ADDED", "b"],
    ["MODIFIED", "a"],
    ["DELETED", "b"],
    ["BOOKMARK", undefined],
  ]);
  expect(body.at(-1).object.metadata.resourceVersion).toBe(server.resourceVersion);
});

test.each(["", "0"])("a watch from version %j begins with what there is", async (version) => {
  await send("POST", PODS, pod("a"));
  const watching = send("GET", `/api/v1/pods?watch=true&resourceVersion=${version}&timeoutSeconds=1`);
  await until(() => server.openWatches === 1, "no watch");
  server.endWatches();
  expect((await watching).body).toMatchObject([{ type: "ADDED", object: { metadata: { name: "a" } } }]);
});

test("a watch with initial events closes them with a bookmark", async () => {
  await send("POST", PODS, pod("a"));
  const query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
  const watching = send("GET", `/api/v1/pods?${query}`);
  await until(() => server.openWatches === 1, "no watch");
  server.endWatches();
  expect((await watching).body).toMatchObject([
    { type: "ADDED" },
    { type: "BOOKMARK", object: { metadata: { annotations: { "k8s.io/initial-events-end": "true" } } } },
  ]);
});

test("a selector makes objects come and go on a watch", async () => {
  await send("POST", PODS, pod("a"));
  const watching = send("GET", `/api/v1/pods?watch=1&resourceVersion=${server.resourceVersion}&labelSelector=mesh`);
  await until(() => server.openWatches === 1, "no watch");
  const label = (labels: object) => send("PATCH", `${PODS}/a`, { metadata: { labels } }, MERGE);
  await label({ other: "1" });
  await label({ mesh: "1" });
  await label({ mesh: "2" });
  await label({ mesh: null });
  await send("DELETE", `${PODS}/a`);
  server.endWatches();
  expect((await watching).body.map(({ type }: { type: string }) => type)).toEqual(["ADDED", "MODIFIED", "DELETED"]);
});

test("a watch of one object by its path, and of one namespace only", async () => {
  server.put({ kind: "Namespace", metadata: { name: "other" } });
  const from = server.resourceVersion;
  const one = send("GET", `${PODS}/b?watch=1&resourceVersion=${from}`);
  const namespaced = send("GET", `${PODS}?watch=1&resourceVersion=${from}`);
  await until(() => server.openWatches === 2, "no watches");
  await send("POST", PODS, pod("a"));
  await send("POST", PODS, pod("b"));
  await send("POST", "/api/v1/namespaces/other/pods", pod("b"));
  server.endWatches();
  expect((await one).body).toHaveLength(1);
  expect((await namespaced).body).toHaveLength(2);
});

test("a watch from a version that was compacted is expired", async () => {
  const from = server.resourceVersion;
  await send("POST", PODS, pod("a"));
  server.compact();
  const answer = await send("GET", `/api/v1/pods?watch=1&resourceVersion=${from}`);
  expect(answer).toMatchObject({ status: 410, body: { reason: "Expired", code: 410 } });
});

test("history is bounded: after ten thousand changes the beginning is forgotten", async () => {
  const from = server.resourceVersion;
  for (let index = 0; index < 12_000; index++) {
    server.put({ kind: "Namespace", metadata: { name: "busy", labels: { index: String(index) } } });
  }
  expect((await send("GET", `/api/v1/pods?watch=1&resourceVersion=${from}`)).status).toBe(410);
});

test("a Table with the mesh state, and metadata for label columns", async () => {
  await send("POST", PODS, pod("a", { app: "a" }));
  const annotations = { "ambient.istio.io/redirection": "enabled" };
  await send(
    "PATCH",
    `${PODS}/a/status`,
    { metadata: { annotations }, status: { phase: "Running", podIP: "10.0.0.1" } },
    MERGE,
  );
  const { body } = await send("GET", PODS, undefined, TABLE);
  expect(body.kind).toBe("Table");
  expect(body.columnDefinitions.map(({ name }: { name: string }) => name)).toEqual([
    "Name",
    "Ready",
    "Status",
    "Mesh",
    "Age",
    "IP",
    "Node",
  ]);
  expect(body.rows[0].cells).toEqual([
    "a",
    "0/1",
    "Running",
    "enabled",
    expect.stringMatching(/^\d+s$/),
    "10.0.0.1",
    "node1",
  ]);
  expect(body.rows[0].object.metadata.labels).toEqual({ app: "a" });
  const namespaces = await send("GET", "/api/v1/namespaces", undefined, TABLE);
  expect(namespaces.body.rows[0].cells.slice(0, 3)).toEqual(["shop", "Active", "-"]);
});

test("discovery, version, health and schema", async () => {
  expect((await send("GET", "/api")).body.versions).toEqual(["v1"]);
  expect((await send("GET", "/apis")).body.groups).toMatchObject([
    { name: "networking.k8s.io", preferredVersion: { version: "v1" } },
    { name: "apps", preferredVersion: { version: "v1" } },
  ]);
  expect((await send("GET", "/apis/apps")).body.kind).toBe("APIGroup");
  const core = (await send("GET", "/api/v1")).body.resources;
  expect(core).toContainEqual(
    expect.objectContaining({ name: "pods", kind: "Pod", shortNames: ["po"], namespaced: true }),
  );
  expect(core).toContainEqual(expect.objectContaining({ name: "pods/status" }));
  expect((await send("GET", "/apis/apps/v1")).body.resources[0]).toMatchObject({ name: "daemonsets" });
  expect((await send("GET", "/version")).body).toMatchObject({ major: "1" });
  expect(await send("GET", "/readyz")).toMatchObject({ status: 200, body: "ok" });
  expect(Object.keys((await send("GET", "/openapi/v3")).body.paths)).toEqual([
    "api/v1",
    "apis/networking.k8s.io/v1",
    "apis/apps/v1",
  ]);
  expect((await send("GET", "/openapi/v3/api/v1")).body.paths).toHaveProperty([
    "/api/v1/namespaces/{namespace}/pods/{name}",
  ]);
  expect((await send("GET", "/nothing")).status).toBe(404);
});

test("a DaemonSet", async () => {
  server.put({ kind: "DaemonSet", metadata: { name: "istio-cni-node", namespace: "shop" }, spec: { template: {} } });
  const { body } = await send("GET", "/apis/apps/v1/namespaces/shop/daemonsets/istio-cni-node");
  expect(body).toMatchObject({ apiVersion: "apps/v1", kind: "DaemonSet" });
  const missing = await send("GET", "/apis/apps/v1/namespaces/shop/daemonsets/none");
  expect(missing.body.message).toBe('daemonsets.apps "none" not found');
});

test("a namespace as kubectl's typed commands encode it", async () => {
  // runtime.Unknown{TypeMeta{"v1","Namespace"}, Raw: Namespace{ObjectMeta{Name: "new"}}} after "k8s\\0".
  const metadata = Buffer.concat([Buffer.from([0x0a, 3]), Buffer.from("new")]);
  const namespace = Buffer.concat([Buffer.from([0x0a, metadata.length]), metadata]);
  const typeMeta = Buffer.concat([
    Buffer.from([0x0a, 2]),
    Buffer.from("v1"),
    Buffer.from([0x12, 9]),
    Buffer.from("Namespace"),
  ]);
  const body = Buffer.concat([
    Buffer.from("k8s\0"),
    Buffer.from([0x0a, typeMeta.length]),
    typeMeta,
    Buffer.from([0x12, namespace.length]),
    namespace,
  ]);
  const headers = { "content-type": "application/vnd.kubernetes.protobuf" };
  expect((await send("POST", "/api/v1/namespaces", body, headers)).status).toBe(201);
  expect(server.get("Namespace", undefined, "new")?.metadata.labels).toEqual({ "kubernetes.io/metadata.name": "new" });
  expect((await send("POST", "/api/v1/namespaces", body.subarray(0, 12), headers)).status).toBe(400);
  expect((await send("POST", "/api/v1/namespaces", Buffer.from("nonsense"), headers)).status).toBe(400);
});

test("accounts: who has no token, who may do what", async () => {
  const guarded = new FaultyApiServer({
    tls: false,
    accounts: [
      { user: "root", token: "r", rules: "admin" },
      {
        user: "agent",
        token: "a",
        rules: [
          { verbs: ["get", "list"], resources: ["pods"] },
          { verbs: ["patch"], resources: ["pods/status"] },
          { verbs: ["get"], resources: ["daemonsets"], resourceNames: ["mine"] },
        ],
      },
    ],
  });
  await guarded.start();
  guarded.put({ kind: "Namespace", metadata: { name: "shop" } });
  guarded.put({ kind: "Pod", metadata: { name: "a", namespace: "shop" } });
  guarded.put({ kind: "DaemonSet", metadata: { name: "mine", namespace: "shop" } });
  guarded.put({ kind: "DaemonSet", metadata: { name: "theirs", namespace: "shop" } });
  const as = async (token: string, method: string, path: string, body?: unknown) =>
    (await call(guarded.url, method, path, body, { authorization: `Bearer ${token}`, ...(body ? MERGE : {}) })).status;
  const daemonSets = "/apis/apps/v1/namespaces/shop/daemonsets";
  expect(await as("wrong", "GET", PODS)).toBe(401);
  expect((await call(guarded.url, "GET", PODS)).body).toMatchObject({ code: 401, reason: "Unauthorized" });
  expect(await as("r", "DELETE", `${PODS}/a`)).toBe(200);
  guarded.put({ kind: "Pod", metadata: { name: "a", namespace: "shop" } });
  expect(await as("a", "GET", PODS)).toBe(200);
  expect(await as("a", "GET", `${PODS}?watch=1`)).toBe(403);
  expect(await as("a", "PATCH", `${PODS}/a/status`, { metadata: {} })).toBe(200);
  expect(await as("a", "PATCH", `${PODS}/a`, { metadata: {} })).toBe(403);
  expect(await as("a", "DELETE", `${PODS}/a`)).toBe(403);
  expect(await as("a", "GET", `${daemonSets}/mine`)).toBe(200);
  expect(await as("a", "GET", `${daemonSets}/theirs`)).toBe(403);
  expect(await as("a", "GET", daemonSets)).toBe(403);
  await guarded.close();
});

test("objects from inside the process: put keeps the uid, replaces the rest, and is validated", () => {
  const first = server.put({ kind: "Pod", metadata: { name: "a", namespace: "shop" }, status: { phase: "Running" } });
  const second = server.put({ kind: "Pod", metadata: { name: "a", namespace: "shop" }, status: { phase: "Failed" } });
  expect(second.metadata.uid).toBe(first.metadata.uid);
  expect(second.status).toEqual({ phase: "Failed" });
  expect(() => server.put({ kind: "Pod", metadata: { name: "A b", namespace: "shop" } })).toThrow(/metadata.name/);
  expect(() => server.put({ kind: "Pod", metadata: { name: "a", namespace: "none" } })).toThrow(/not found/);
  expect(() => server.put({ kind: "Secret", metadata: { name: "a" } })).toThrow(/knows no Secret/);
  const given = server.put({ kind: "Pod", metadata: { name: "static", namespace: "shop", uid: "my-uid" } });
  expect(given.metadata.uid).toBe("my-uid");
});

function namesOf(list: { items: { metadata: { name: string } }[] }): string[] {
  return list.items.map(({ metadata }) => metadata.name);
}
