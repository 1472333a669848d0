// SPDX-License-Identifier: Apache-2.0
import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { isIPv6 } from "node:net";
import { join } from "node:path";
import { createSecureContext, type SecureContext, type SecureContextOptions } from "node:tls";
import { AgentError, messageOf } from "../core/errors.ts";

const CODE = "KUBE_CREDENTIALS";

/** What a connection to the API server needs. */
export interface Credentials {
  readonly server: URL;
  /** Authorization and impersonation; never logged. */
  readonly headers: Readonly<Record<string, string>>;
  /** Undefined for plain http. */
  readonly tls: TlsIdentity | undefined;
}

export interface TlsIdentity {
  /** Differs when certificate, key or CA differ: connections of another identity are not reused. */
  readonly fingerprint: string;
  readonly context: SecureContext;
  readonly rejectUnauthorized: boolean;
  readonly servername: string | undefined;
}

export interface CredentialSource {
  /** For messages: the file, or the directory of the service account. */
  readonly origin: string;
  /** Reads everything afresh. @throws AgentError KUBE_CREDENTIALS that names the file. */
  load(): Promise<Credentials>;
}

export interface InClusterOptions {
  readonly host: string | undefined;
  readonly port: string | undefined;
  /** Holds `token` and `ca.crt`, as kubelet mounts them. */
  readonly directory: string;
}

/**
 * Credentials of the pod's service account. Read here and not by client-node's KubeConfig, which
 * would say nothing else but cost every node 17 MB of resident memory.
 */
export function inClusterCredentials(options: InClusterOptions): CredentialSource {
  const { directory } = options;
  return {
    origin: directory,
    async load() {
      const tokenFile = join(directory, "token");
      const caFile = join(directory, "ca.crt");
      return {
        server: inClusterServer(options.host, options.port),
        headers: bearer(await readText(tokenFile), tokenFile),
        tls: tlsIdentity({ ca: await readText(caFile) }, { origin: caFile }),
      };
    },
  };
}

function inClusterServer(host: string | undefined, port: string | undefined): URL {
  if (host === undefined || host === "" || port === undefined || port === "") {
    throw new AgentError(
      CODE,
      "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not both set",
      "run the agent in a pod, or name a kubeconfig",
    );
  }
  return serverUrl(`https://${isIPv6(host) ? `[${host}]` : host}:${port}`, "KUBERNETES_SERVICE_HOST and _PORT");
}

/** @throws AgentError that names the value and its origin. */
export function serverUrl(text: string, origin: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || (url.protocol !== "https:" && url.protocol !== "http:")) {
    throw new AgentError(CODE, `${origin}: not the address of an API server: ${JSON.stringify(text)}`);
  }
  return url;
}

/** Authorization header of a token. @throws AgentError that names the origin, never the token. */
export function bearer(token: string, origin: string): Record<string, string> {
  const trimmed = token.trim();
  if (trimmed === "") throw new AgentError(CODE, `${origin}: the token is empty`);
  // The same set as RFC 6750's b64token, and nothing that could end a header line.
  if (!/^[\w.~+/=-]+$/.test(trimmed)) {
    throw new AgentError(CODE, `${origin}: the token holds a character that no bearer token has`);
  }
  return { authorization: `Bearer ${trimmed}` };
}

/** @throws AgentError that names the origin when certificate, key or CA can't be parsed. */
export function tlsIdentity(
  material: Pick<SecureContextOptions, "ca" | "cert" | "key">,
  options: { readonly origin: string; readonly rejectUnauthorized?: boolean; readonly servername?: string | undefined },
): TlsIdentity {
  if (material.ca !== undefined) checkAuthority(String(material.ca), options.origin);
  try {
    return {
      fingerprint: JSON.stringify([material.ca, material.cert, material.key].map((part) => String(part ?? ""))),
      context: createSecureContext({ ...material, minVersion: "TLSv1.2" }),
      rejectUnauthorized: options.rejectUnauthorized ?? true,
      servername: options.servername,
    };
  } catch (error) {
    throw new AgentError(
      CODE,
      `${options.origin}: certificate, key or authority can't be used: ${messageOf(error)}`,
      undefined,
      { cause: error },
    );
  }
}

/** OpenSSL passes over what is no certificate, and with nothing left to trust every handshake fails. */
function checkAuthority(text: string, origin: string): void {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0) throw new AgentError(CODE, `${origin}: the certificate authority is no PEM certificate`);
  for (const block of blocks) {
    try {
      new X509Certificate(block);
    } catch (error) {
      throw new AgentError(CODE, `${origin}: the certificate authority is damaged: ${messageOf(error)}`, undefined, {
        cause: error,
      });
    }
  }
}

/** @throws AgentError that names the file. */
export async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    throw new AgentError(CODE, `can't read ${file}: ${messageOf(error)}`, undefined, { cause: error });
  }
}
