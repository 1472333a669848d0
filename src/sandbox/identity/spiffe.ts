// SPDX-License-Identifier: Apache-2.0

/** Who a workload is, as far as mutual TLS is concerned. */
export interface Identity {
  readonly trustDomain: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

const PATTERN = /^spiffe:\/\/([A-Za-z0-9._-]+)\/ns\/([A-Za-z0-9._-]+)\/sa\/([A-Za-z0-9._-]+)$/;
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

/** One alternative name as Node writes them: bare, or quoted like JSON when it holds what could mislead. */
const ALTERNATIVE_NAME = /([^:,"]+):("(?:[^"\\]|\\.)*"|[^",]*)(?:, |$)/gy;

/** The SPIFFE ids among the URI names of a certificate (`subjectAltName` of Node). Quoted names are none. */
export function spiffeIdsOf(subjectAltName: string | undefined): string[] {
  const names = [...(subjectAltName ?? "").matchAll(ALTERNATIVE_NAME)];
  return names.flatMap(([, kind, value = ""]) => (kind === "URI" && PATTERN.test(value) ? [value] : []));
}
