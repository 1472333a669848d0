// SPDX-License-Identifier: Apache-2.0

/** Who a workload is, as far as mutual TLS is concerned. */
export interface Identity {
  readonly trustDomain: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

const PATTERN = /^spiffe:\/\/([^/]+)\/ns\/([^/]+)\/sa\/([^/]+)$/;
/** One path segment of a SPIFFE id: what Kubernetes allows in these names, and nothing that could end a URI. */
const SEGMENT = /^[A-Za-z0-9._-]{1,253}$/;

/**
 * Text form `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`, as Istio writes it.
 * @throws Error that names the part that can't be a segment of a SPIFFE id.
 */
export function spiffeId(identity: Identity): string {
  for (const part of [identity.trustDomain, identity.namespace, identity.serviceAccount]) {
    if (!SEGMENT.test(part)) throw new Error(`not a part of a SPIFFE id: ${JSON.stringify(part)}`);
  }
  return `spiffe://${identity.trustDomain}/ns/${identity.namespace}/sa/${identity.serviceAccount}`;
}

/** The parts of a SPIFFE id in Istio's form. @throws Error that names the text when it has another form. */
export function parseSpiffeId(text: string): Identity {
  const [, trustDomain, namespace, serviceAccount] = PATTERN.exec(text) ?? [];
  if (trustDomain === undefined || namespace === undefined || serviceAccount === undefined) {
    throw new Error(`not a SPIFFE id of a service account: ${JSON.stringify(text)}`);
  }
  return { trustDomain, namespace, serviceAccount };
}

/**
 * The SPIFFE ids in the alternative names of a certificate, as Node writes them (`URI:…, DNS:…`). A name with
 * a comma or a quote can't pass for one: Node quotes those.
 */
export function spiffeIdsOf(subjectAltName: string | undefined): string[] {
  return (subjectAltName ?? "")
    .split(", ")
    .filter((name) => name.startsWith("URI:"))
    .map((name) => name.slice("URI:".length))
    .filter((uri) => PATTERN.test(uri));
}
