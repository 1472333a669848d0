// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CredentialKeeper } from "../../../src/kube/credential-keeper.ts";
import { inClusterCredentials } from "../../../src/kube/credentials.ts";
import { kubeconfigCredentials } from "../../../src/kube/kubeconfig.ts";
import { serverCertificate } from "../../../src/sandbox/apiserver/server-certificate.ts";
import { LogRecorder } from "../../support/recorder.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";
import { StepClock } from "./step-clock.ts";

const { authority, certificate, key } = serverCertificate(["127.0.0.1"]);
const CA = Buffer.from(authority).toString("base64");
let scratch: ScratchDir;

beforeAll(() => {
  scratch = new ScratchDir();
});
afterAll(() => scratch[Symbol.dispose]());

function account(token: string, ca = authority): string {
  const directory = scratch.file(`sa-${Math.random()}`);
  mkdirSync(directory);
  writeFileSync(`${directory}/token`, token);
  writeFileSync(`${directory}/ca.crt`, ca);
  return directory;
}

function kubeconfig(text: string): string {
  const path = scratch.file(`config-${Math.random()}`);
  writeFileSync(path, text);
  return path;
}

function config(cluster: object, user: object): string {
  return JSON.stringify({
    clusters: [{ name: "c", cluster }],
    users: [{ name: "u", user }],
    contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
    "current-context": "x",
  });
}

test.each([
  ["10.96.0.1", "443", "https://10.96.0.1/"],
  ["fd00::1", "6443", "https://[fd00::1]:6443/"],
])("in a cluster at %s port %s", async (host, port, url) => {
  const credentials = await inClusterCredentials({ host, port, directory: account("to.k-e_n\n") }).load();
  expect(credentials.server.href).toBe(url);
  expect(credentials.headers).toEqual({ authorization: "Bearer to.k-e_n" });
  expect(credentials.tls?.rejectUnauthorized).toBe(true);
});

test.each([
  ["an empty token", () => account(" \n"), /token: the token is empty/],
  ["a token with a line break", () => account("a\nx-evil: 1"), /token: the token holds a character/],
  ["a token that is binary", () => account("\u0000\u0001"), /token: the token holds a character/],
  ["a CA that is no PEM", () => account("t", "hello"), /ca.crt: the certificate authority is no PEM certificate/],
  [
    "a CA that is damaged",
    () => account("t", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    /ca.crt: the certificate authority is damaged/,
  ],
  ["no directory", () => scratch.file("absent"), /can't read .*absent\/token: ENOENT/],
])("a service account with %s gives one error that names the file", async (_what, make, message) => {
  const source = inClusterCredentials({ host: "127.0.0.1", port: "1", directory: make() });
  await expect(source.load()).rejects.toMatchObject({
    code: "KUBE_CREDENTIALS",
    message: expect.stringMatching(message),
  });
});

test("an error never shows the token", async () => {
  const source = inClusterCredentials({ host: "127.0.0.1", port: "1", directory: account("secret secret") });
  await expect(source.load()).rejects.toThrow(/^(?!.*secret)/s);
});

test.each([
  [undefined, "443"],
  ["127.0.0.1", ""],
  ["not a host", "443"],
  ["127.0.0.1", "https"],
])("no address in the environment: %j %j", async (host, port) => {
  const source = inClusterCredentials({ host, port, directory: account("t") });
  await expect(source.load()).rejects.toThrow(/KUBERNETES_SERVICE_HOST/);
});

test("a kubeconfig with a token", async () => {
  const path = kubeconfig(
    config({ server: "https://127.0.0.1:6443/prefix", "certificate-authority-data": CA }, { token: "abc" }),
  );
  const credentials = await kubeconfigCredentials(path).load();
  expect(credentials.server.href).toBe("https://127.0.0.1:6443/prefix");
  expect(credentials.headers).toEqual({ authorization: "Bearer abc" });
});

test("a kubeconfig in YAML with files beside it: tokenFile, CA, server name", async () => {
  writeFileSync(scratch.file("the-token"), "from-file\n");
  writeFileSync(scratch.file("the-ca"), authority);
  const path = kubeconfig(
    [
      "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1', certificate-authority: the-ca, tls-server-name: kube}}]",
      "users: [{name: u, user: {tokenFile: the-token}}]",
      "contexts: [{name: x, context: {cluster: c, user: u}}]",
      "current-context: x",
    ].join("\n"),
  );
  const credentials = await kubeconfigCredentials(path).load();
  expect(credentials.headers).toEqual({ authorization: "Bearer from-file" });
  expect(credentials.tls?.servername).toBe("kube");
});

test("a kubeconfig with a client certificate, with a password, and over plain http", async () => {
  const certificates = {
    "client-certificate-data": Buffer.from(certificate).toString("base64"),
    "client-key-data": Buffer.from(key).toString("base64"),
  };
  const withCertificate = await kubeconfigCredentials(
    kubeconfig(config({ server: "https://127.0.0.1:1", "certificate-authority-data": CA }, certificates)),
  ).load();
  expect(withCertificate.headers).toEqual({});
  expect(withCertificate.tls?.fingerprint).toContain("PRIVATE KEY");
  const plain = await kubeconfigCredentials(
    kubeconfig(config({ server: "http://127.0.0.1:1" }, { username: "me", password: "pw" })),
  ).load();
  expect(plain.headers).toEqual({ authorization: `Basic ${Buffer.from("me:pw").toString("base64")}` });
  expect(plain.tls).toBeUndefined();
});

test.each([
  ["that is no YAML", "a: [", /kubeconfig .*config-/],
  ["that is a scalar", "hello", /no mapping at its top/],
  ["that is empty", "", /no mapping at its top/],
  ["without contexts", "{}", /no cluster for the current context/],
  ["without a user", config({ server: "https://h" }, {}).replace('"name":"u"', '"name":"v"'), /no user/],
  ["without a server", config({}, {}), /server is missing/],
  ["with a server of another kind", config({ server: "ftp://x" }, {}), /not the address of an API server/],
  ["with a CA that is no PEM", config({ server: "https://h", "certificate-authority-data": "aGVsbG8=" }, {}), /no PEM/],
  [
    "with a key that is damaged",
    config({ server: "https://h" }, { "client-certificate-data": CA, "client-key-data": "aGVsbG8=" }),
    /certificate, key or authority can't be used/,
  ],
  ["with a proxy", config({ server: "https://h", "proxy-url": "http://p" }, {}), /proxy-url is not supported/],
  ["with a CA file that is absent", config({ server: "https://h", "certificate-authority": "nope" }, {}), /nope/],
  ["with a token file that is absent", config({ server: "http://h" }, { tokenFile: "nope" }), /nope/],
])("a kubeconfig %s gives one error that names it", async (_what, text, message) => {
  const source = kubeconfigCredentials(kubeconfig(text));
  const error = await source.load().then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toMatchObject({ code: "KUBE_CREDENTIALS", message: expect.stringMatching(message) });
  expect(String(error)).toContain(scratch.path);
});

test("an absent kubeconfig is named", async () => {
  await expect(kubeconfigCredentials(scratch.file("absent")).load()).rejects.toThrow(/can't read .*absent: ENOENT/);
});

test("credentials are read again after a minute, and kept while that fails", async () => {
  const directory = account("first");
  const clock = new StepClock();
  const logger = new LogRecorder();
  const source = inClusterCredentials({ host: "127.0.0.1", port: "1", directory });
  const keeper = new CredentialKeeper(source, clock, logger);
  const token = async () => (await keeper.current()).headers.authorization;
  expect(await token()).toBe("Bearer first");
  writeFileSync(`${directory}/token`, "second");
  clock.advance(59_999);
  expect(await token()).toBe("Bearer first");
  clock.advance(1);
  expect(await token()).toBe("Bearer second");
  rmSync(`${directory}/token`);
  for (let minute = 0; minute < 3; minute++) {
    clock.advance(60_000);
    expect(await token()).toBe("Bearer second");
  }
  expect(logger.lines).toHaveLength(1);
  expect(logger.lines[0]?.fields.error).toContain("token");
});
