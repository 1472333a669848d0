// SPDX-License-Identifier: Apache-2.0
import { generateKeyPairSync } from "node:crypto";
import { encodeCertificate, pem } from "../identity/certificate.ts";

export interface ServerCertificate {
  /** PEM, each. */
  readonly authority: string;
  readonly certificate: string;
  readonly key: string;
}

const LIFE_MS = 30 * 24 * 3_600_000;
const BACKDATE_MS = 60_000;

/** A fresh authority and a certificate by it for these addresses and names; its key is kept nowhere. */
export function serverCertificate(hosts: readonly string[], now: number = Date.now()): ServerCertificate {
  const authority = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
  const server = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
  const shared = {
    issuer: "ambient-cni sandbox API",
    signingKey: authority,
    notBefore: new Date(now - BACKDATE_MS),
    notAfter: new Date(now + LIFE_MS),
  };
  const root = encodeCertificate({
    ...shared,
    subject: shared.issuer,
    subjectKey: authority,
    use: { kind: "authority" },
  });
  const leaf = encodeCertificate({
    ...shared,
    subject: "kube-apiserver",
    subjectKey: server,
    use: { kind: "server", hosts },
  });
  return {
    authority: pem("CERTIFICATE", root),
    certificate: pem("CERTIFICATE", leaf),
    key: String(server.export({ type: "pkcs8", format: "pem" })),
  };
}
