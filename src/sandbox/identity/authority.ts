// SPDX-License-Identifier: Apache-2.0
import { createPrivateKey, generateKeyPairSync, type KeyObject, X509Certificate } from "node:crypto";
import { type CertificateSpec, encodeCertificate, pem } from "./certificate.ts";
import { type Identity, spiffeId } from "./spiffe.ts";

/** A workload's key and certificate, in PEM, ready for node:tls. */
export interface Credentials {
  readonly identity: string;
  readonly key: string;
  /** Leaf only: the root that signed it is the peer's trust anchor. */
  readonly certificate: string;
  /** When to ask for the next one, in ms since the epoch: half of its life, as ztunnel does. */
  readonly renewAt: number;
}

const NAME = "ambient-cni sandbox";
/** Clocks may differ a little; nothing here lives long enough for it to matter. */
const BACKDATE_MS = 60_000;
const ROOT_LIFE_MS = 24 * 3_600_000;
const LEAF_LIFE_MS = 3_600_000;

/**
 * The certificate authority of one sandbox: an EC P-256 root that lives for a day, in memory. It takes
 * istiod's place for the stand-in ztunnel and is of no use to anything else.
 */
export class CertificateAuthority {
  private constructor(
    private readonly key: KeyObject,
    readonly rootCertificate: string,
  ) {}

  static create(now: number = Date.now()): CertificateAuthority {
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const der = encodeCertificate({
      issuer: NAME,
      subject: NAME,
      subjectKey: privateKey,
      signingKey: privateKey,
      notBefore: new Date(now - BACKDATE_MS),
      notAfter: new Date(now + ROOT_LIFE_MS),
      use: { kind: "authority" },
    });
    return new CertificateAuthority(privateKey, pem("CERTIFICATE", der));
  }

  /**
   * The authority that `toPem` wrote: two stand-ins of one sandbox trust each other through it.
   * @throws Error when the text holds no key, no certificate, or two that don't belong together.
   */
  static fromPem(text: string): CertificateAuthority {
    const certificate = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n?/.exec(text)?.[0];
    const keyText = /-----BEGIN PRIVATE KEY-----[^-]+-----END PRIVATE KEY-----\n?/.exec(text)?.[0];
    if (certificate === undefined) throw new Error("the authority's PEM holds no certificate");
    if (keyText === undefined) throw new Error("the authority's PEM holds no private key");
    const key = createPrivateKey(keyText);
    if (!new X509Certificate(certificate).checkPrivateKey(key)) {
      throw new Error("the authority's certificate and private key don't belong together");
    }
    return new CertificateAuthority(key, certificate);
  }

  /** Key and certificate, in PEM. Keep it to its owner: whoever holds it is every identity of the sandbox. */
  toPem(): string {
    return `${this.key.export({ type: "pkcs8", format: "pem" })}${this.rootCertificate}`;
  }

  /** A fresh key and a certificate for it, valid for an hour, for client and server side. */
  issue(identity: Identity, now: number = Date.now()): Credentials {
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    return {
      identity: spiffeId(identity),
      key: privateKeyPem(privateKey),
      certificate: this.certify(privateKey, identity, LEAF_LIFE_MS, now),
      renewAt: now + LEAF_LIFE_MS / 2,
    };
  }

  /**
   * PEM of a certificate for somebody else's key, for client and server side, that ends after `lifeMs` or an hour.
   * @throws Error that names the part of the identity that can't be
   */
  certify(key: KeyObject, identity: Identity, lifeMs: number, now: number = Date.now()): string {
    const use = { kind: "workload", uri: spiffeId(identity) } as const;
    return this.sign({ subject: "", subjectKey: key, use, lifeMs: Math.min(lifeMs, LEAF_LIFE_MS), now });
  }

  /** Key and certificate, in PEM, of a server that is reached by these addresses and names; they last as long as the root. */
  serve(hosts: readonly string[], now: number = Date.now()): { readonly key: string; readonly certificate: string } {
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const use = { kind: "server", hosts } as const;
    const certificate = this.sign({ subject: "", subjectKey: privateKey, use, lifeMs: ROOT_LIFE_MS, now });
    return { key: privateKeyPem(privateKey), certificate };
  }

  private sign({ lifeMs, now, ...rest }: Leaf): string {
    const der = encodeCertificate({
      ...rest,
      issuer: NAME,
      signingKey: this.key,
      notBefore: new Date(now - BACKDATE_MS),
      notAfter: new Date(now + lifeMs),
    });
    return pem("CERTIFICATE", der);
  }
}

type Leaf = Pick<CertificateSpec, "subject" | "subjectKey" | "use"> & { readonly lifeMs: number; readonly now: number };

const privateKeyPem = (key: KeyObject): string => String(key.export({ type: "pkcs8", format: "pem" }));
