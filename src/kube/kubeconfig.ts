// SPDX-License-Identifier: Apache-2.0
import type { RequestOptions } from "node:https";
import { dirname, resolve } from "node:path";
import type { KubeConfig } from "@kubernetes/client-node/dist/config.js";
import type { User } from "@kubernetes/client-node/dist/config_types.js";
import { parse } from "yaml";
import { AgentError, messageOf } from "../core/errors.ts";
import { bearer, type CredentialSource, type Credentials, readText, serverUrl, tlsIdentity } from "./credentials.ts";
import { isRecord, listOf, recordOf, textOf } from "./json.ts";

const CODE = "KUBE_CREDENTIALS";

/** Credentials of the current context of a kubeconfig file, in every form that client-node knows. */
export function kubeconfigCredentials(path: string): CredentialSource {
  return { origin: path, load: () => loadKubeconfig(path) };
}

async function loadKubeconfig(path: string): Promise<Credentials> {
  const text = await readText(path);
  const document = parseDocument(text, path);
  // Loaded only here: with its generated classes it is the biggest part of the bundle, and in a
  // cluster nobody needs it.
  const { KubeConfig } = await import("@kubernetes/client-node/dist/config.js");
  const config = new KubeConfig();
  try {
    config.loadFromString(text);
    config.makePathsAbsolute(dirname(path));
  } catch (error) {
    throw broken(path, messageOf(error), error);
  }
  const cluster = config.getCurrentCluster();
  if (cluster === null)
    throw broken(path, `no cluster for the current context ${JSON.stringify(config.currentContext)}`);
  const user = config.getCurrentUser();
  if (user === null) throw broken(path, `no user for the current context ${JSON.stringify(config.currentContext)}`);
  if (cluster.proxyUrl !== undefined) throw broken(path, "proxy-url is not supported");
  const options = await applied(config, path);
  return {
    server: serverUrl(cluster.server, path),
    headers: await authorization(options, document, user, path),
    tls: cluster.server.startsWith("http:") ? undefined : tlsOf(options, path),
  };
}

function parseDocument(text: string, path: string): unknown {
  let document: unknown;
  try {
    document = parse(text);
  } catch (error) {
    throw broken(path, messageOf(error), error);
  }
  if (!isRecord(document)) throw broken(path, "not a kubeconfig: no mapping at its top");
  return document;
}

async function applied(config: KubeConfig, path: string): Promise<RequestOptions> {
  const options: RequestOptions = {};
  try {
    // client-node refuses plain http unless told to skip verification, of which http has none.
    if (config.getCurrentCluster()?.server.startsWith("http:")) {
      config.clusters = config.clusters.map((cluster) => ({ ...cluster, skipTLSVerify: true }));
    }
    await config.applyToHTTPSOptions(options);
  } catch (error) {
    throw broken(path, messageOf(error), error);
  }
  return options;
}

async function authorization(
  options: RequestOptions,
  document: unknown,
  user: User,
  path: string,
): Promise<Record<string, string>> {
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(recordOf(options.headers))) headers[name.toLowerCase()] = String(value);
  if (typeof options.auth === "string") {
    headers.authorization = `Basic ${Buffer.from(options.auth).toString("base64")}`;
  }
  const given = headers.authorization;
  if (given?.startsWith("Bearer ")) return { ...headers, ...bearer(given.slice("Bearer ".length), path) };
  // client-node 1.4.0 reads `token-file`; kubeconfigs spell it `tokenFile`.
  const tokenFile = given === undefined ? tokenFileOf(document, user.name) : "";
  if (tokenFile === "") return headers;
  const file = resolve(dirname(path), tokenFile);
  return { ...headers, ...bearer(await readText(file), file) };
}

function tokenFileOf(document: unknown, userName: string): string {
  const entry = listOf(recordOf(document).users).find((user) => recordOf(user).name === userName);
  return textOf(recordOf(recordOf(entry).user).tokenFile);
}

function tlsOf(options: RequestOptions, path: string) {
  return tlsIdentity(
    {
      ...(options.ca === undefined ? {} : { ca: pem(options.ca) }),
      ...(options.cert === undefined ? {} : { cert: pem(options.cert) }),
      ...(options.key === undefined ? {} : { key: pem(options.key) }),
    },
    {
      origin: path,
      rejectUnauthorized: options.rejectUnauthorized ?? true,
      servername: options.servername,
    },
  );
}

function pem(value: unknown): string {
  return Buffer.isBuffer(value) ? value.toString("utf8") : String(value);
}

function broken(path: string, why: string, cause?: unknown): AgentError {
  return new AgentError(CODE, `kubeconfig ${path}: ${why}`, undefined, { cause });
}
