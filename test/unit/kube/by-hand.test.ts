// SPDX-License-Identifier: Apache-2.0
// What `ambient-cni check` asks the API server by itself: its time, its policies; and what it reads of the account.
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, test } from "vitest";
import { POLICIES } from "../../../src/kube/access.ts";
import { credentialsFor } from "../../../src/kube/credentials-for.ts";
import { policyFromKube } from "../../../src/kube/policies.ts";
import { readPolicies } from "../../../src/kube/policy-reader.ts";
import { serverTime } from "../../../src/kube/server-time.ts";
import { authorityEnd, tokenLife } from "../../../src/kube/service-account.ts";
import { agentRules } from "../../../src/sandbox/apiserver/access.ts";
import { silent } from "../../fakes/parts.ts";
import { ClusterHarness } from "./cluster-harness.ts";

let h: ClusterHarness | undefined;
const open = async (rules = agentRules([POLICIES])) => {
  h = await ClusterHarness.create({ rules });
  return h;
};
const credentialsOf = ({ scratch, server }: ClusterHarness) =>
  credentialsFor({
    serviceAccountDir: scratch.file("sa"),
    environment: { KUBERNETES_SERVICE_HOST: "127.0.0.1", KUBERNETES_SERVICE_PORT: String(server.port) },
  });
beforeEach(() => {
  h = undefined;
});
afterEach(async () => h?.[Symbol.asyncDispose]());

const POLICY = {
  kind: "NetworkPolicy",
  metadata: { name: "web", namespace: "shop" },
  spec: {
    podSelector: { matchLabels: { app: "web" }, matchExpressions: [{ key: "tier", operator: "Exists" }] },
    ingress: [{ ports: [{ port: 8080 }, { protocol: "UDP", port: 53 }, { port: 9000, endPort: 9010 }] }],
  },
};

test("policies of the cluster, and labels of this node's pods", async () => {
  const harness = await open();
  harness.server.put(POLICY);
  harness.pod("a");
  harness.server.put({ kind: "Pod", metadata: { name: "b", namespace: "shop" }, spec: { nodeName: "node2" } });
  const found = await readPolicies(credentialsOf(harness), "node1", 5000, silent);
  expect(found.pods.map(({ namespace, labels }) => ({ namespace, labels }))).toEqual([
    { namespace: "shop", labels: {} },
  ]);
  expect(found).toMatchObject({
    more: false,
    policies: [
      {
        namespace: "shop",
        name: "web",
        podSelector: {
          requirements: [
            { key: "app", operator: "In", values: ["web"] },
            { key: "tier", operator: "Exists", values: [] },
          ],
        },
        rules: {
          egress: undefined,
          ingress: [
            {
              ports: [
                { protocol: "TCP", port: 8080 },
                { protocol: "UDP", port: 53 },
                { protocol: "TCP", port: 9000, endPort: 9010 },
              ],
            },
          ],
        },
      },
    ],
  });
});

test("an account that may not is told so", async () => {
  const harness = await open(agentRules());
  await expect(readPolicies(credentialsOf(harness), "node1", 5000, silent)).rejects.toMatchObject({
    code: "KUBE_FORBIDDEN",
  });
});

test.each([
  [{}, { ingress: [], egress: undefined }],
  [{ egress: [{}] }, { ingress: [], egress: [{ ports: [] }] }],
  [
    { policyTypes: ["Egress"], ingress: [{}] },
    { ingress: undefined, egress: [] },
  ],
])("directions of %j, as the API defaults them", (spec, rules) => {
  expect(policyFromKube({ ...POLICY, spec })?.rules).toEqual(rules);
});

test.each([[null], [{}], [{ metadata: POLICY.metadata }], [{ ...POLICY, metadata: { name: "x" } }], ["text"]])(
  "%j is no policy",
  (object) => {
    expect(policyFromKube(object)).toBeUndefined();
  },
);

test("the server's time over TLS, trusted or not", async () => {
  const harness = await open();
  const { server, tls } = await credentialsOf(harness).load();
  const time = await serverTime({ server, tls }, 5000);
  expect(Math.abs(time.aheadMs)).toBeLessThanOrEqual(time.uncertaintyMs + 1);
  expect(time.untrusted).toBeUndefined();
  if (tls === undefined) throw new Error("the server speaks TLS");
  const { createSecureContext } = await import("node:tls");
  const stranger = await serverTime({ server, tls: { ...tls, context: createSecureContext({}) } }, 5000);
  expect(stranger.untrusted).toMatch(/\S/);
});

test.each([
  ["behind", -3_600_000],
  ["ahead", 90_000],
])("a server that is %s", async (_, offset) => {
  const server = createServer((_request, response) => {
    response.writeHead(401, { date: new Date(Date.now() + offset).toUTCString() }).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const time = await serverTime({ server: new URL(`http://127.0.0.1:${port}`), tls: undefined }, 5000);
  expect(Math.abs(time.aheadMs - offset)).toBeLessThanOrEqual(time.uncertaintyMs + 1);
  await new Promise((resolve) => server.close(resolve));
});

test("a server without a Date, a silent one, and none", async () => {
  const server = createServer((request, response) => {
    response.sendDate = false;
    if (!request.url?.startsWith("/silent")) response.end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const ask = (path: string) => serverTime({ server: new URL(`http://127.0.0.1:${port}${path}`), tls: undefined }, 200);
  await expect(ask("")).rejects.toMatchObject({ code: "KUBE_MALFORMED" });
  await expect(ask("/silent")).rejects.toMatchObject({ code: "KUBE_TIMEOUT" });
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await expect(ask("")).rejects.toMatchObject({ code: "KUBE_UNREACHABLE" });
});

const token = (claims: unknown) => `e30.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.c2ln`;
test.each([
  [token({ exp: 200, "kubernetes.io": { warnafter: 100 } }), { expiresAt: 200_000, renewBy: 100_000 }],
  [token({ exp: 200 }), { expiresAt: 200_000, renewBy: 200_000 }],
  [token({}), { expiresAt: undefined, renewBy: undefined }],
  [token("text"), undefined],
  ["opaque", undefined],
  ["a.b.c", undefined],
  ["", undefined],
])("the life of a token %#", (text, life) => {
  expect(tokenLife(text)).toEqual(life);
});

test("the end of an authority", async () => {
  const harness = await open();
  const { readFileSync } = await import("node:fs");
  const pem = readFileSync(harness.scratch.file("sa/ca.crt"), "utf8");
  const end = authorityEnd(`${pem}\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n`);
  expect(end).toBeGreaterThan(Date.now());
  expect(authorityEnd("nothing")).toBeUndefined();
});
