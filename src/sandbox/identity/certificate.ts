// SPDX-License-Identifier: Apache-2.0
// X.509 structures of the sandbox's certificates (RFC 5280), encoded by a library, signed by Node.
import { createHash, createPublicKey, type KeyObject, randomBytes, sign } from "node:crypto";
import { isIP } from "node:net";
import { AsnConvert, OctetString } from "@peculiar/asn1-schema";
import {
  AlgorithmIdentifier,
  AttributeTypeAndValue,
  AttributeValue,
  AuthorityKeyIdentifier,
  BasicConstraints,
  Certificate,
  ExtendedKeyUsage,
  Extension,
  Extensions,
  GeneralName,
  id_ce_authorityKeyIdentifier,
  id_ce_basicConstraints,
  id_ce_extKeyUsage,
  id_ce_keyUsage,
  id_ce_subjectAltName,
  id_ce_subjectKeyIdentifier,
  id_kp_clientAuth,
  id_kp_serverAuth,
  KeyIdentifier,
  KeyUsage,
  KeyUsageFlags,
  Name,
  RelativeDistinguishedName,
  SubjectAlternativeName,
  SubjectKeyIdentifier,
  SubjectPublicKeyInfo,
  TBSCertificate,
  Validity,
  Version,
} from "@peculiar/asn1-x509";

const ECDSA_WITH_SHA256 = "1.2.840.10045.4.3.2";
const ORGANIZATION = "2.5.4.10";

export interface CertificateSpec {
  readonly issuer: string;
  /** Empty for a workload: its name is the URI. */
  readonly subject: string;
  /** Private or public. */
  readonly subjectKey: KeyObject;
  readonly signingKey: KeyObject;
  readonly notBefore: Date;
  readonly notAfter: Date;
  /** A certificate of an authority, the URI that names a workload, or a server's addresses and DNS names. */
  readonly use:
    | { readonly kind: "authority" }
    | { readonly kind: "workload"; readonly uri: string }
    | { readonly kind: "server"; readonly hosts: readonly string[] };
}

/** DER of a version 3 certificate signed with ECDSA P-256 and SHA-256. */
export function encodeCertificate(spec: CertificateSpec): Buffer {
  const algorithm = new AlgorithmIdentifier({ algorithm: ECDSA_WITH_SHA256 });
  const subjectKey = publicKeyInfo(spec.subjectKey);
  const tbsCertificate = new TBSCertificate({
    version: Version.v3,
    serialNumber: serialNumber(),
    signature: algorithm,
    issuer: name(spec.issuer),
    validity: new Validity({ notBefore: spec.notBefore, notAfter: spec.notAfter }),
    subject: name(spec.subject),
    subjectPublicKeyInfo: subjectKey,
    extensions: new Extensions([
      extension(id_ce_subjectKeyIdentifier, false, new SubjectKeyIdentifier(keyId(subjectKey))),
      extension(
        id_ce_authorityKeyIdentifier,
        false,
        new AuthorityKeyIdentifier({ keyIdentifier: new KeyIdentifier(keyId(publicKeyInfo(spec.signingKey))) }),
      ),
      ...extensions(spec.use),
    ]),
  });
  const signature = sign("sha256", Buffer.from(AsnConvert.serialize(tbsCertificate)), spec.signingKey);
  const certificate = new Certificate({
    tbsCertificate,
    signatureAlgorithm: algorithm,
    signatureValue: new Uint8Array(signature).buffer,
  });
  return Buffer.from(AsnConvert.serialize(certificate));
}

/** PEM text of one DER structure. */
export function pem(label: string, der: Buffer): string {
  const lines = der.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}

function extensions(use: CertificateSpec["use"]): Extension[] {
  if (use.kind === "authority") {
    return [
      extension(id_ce_basicConstraints, true, new BasicConstraints({ cA: true, pathLenConstraint: 0 })),
      extension(id_ce_keyUsage, true, new KeyUsage(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign)),
    ];
  }
  const names =
    use.kind === "workload"
      ? [new GeneralName({ uniformResourceIdentifier: use.uri })]
      : use.hosts.map((host) => new GeneralName(isIP(host) === 0 ? { dNSName: host } : { iPAddress: host }));
  return [
    extension(id_ce_basicConstraints, true, new BasicConstraints({ cA: false })),
    extension(id_ce_keyUsage, true, new KeyUsage(KeyUsageFlags.digitalSignature)),
    extension(id_ce_extKeyUsage, false, new ExtendedKeyUsage([id_kp_serverAuth, id_kp_clientAuth])),
    // RFC 5280 4.2.1.6: critical where the subject is empty.
    extension(id_ce_subjectAltName, use.kind === "workload", new SubjectAlternativeName(names)),
  ];
}

function extension(extnID: string, critical: boolean, value: object): Extension {
  return new Extension({ extnID, critical, extnValue: new OctetString(AsnConvert.serialize(value)) });
}

function publicKeyInfo(key: KeyObject): SubjectPublicKeyInfo {
  const publicKey = key.type === "private" ? createPublicKey(key) : key;
  return AsnConvert.parse(publicKey.export({ type: "spki", format: "der" }), SubjectPublicKeyInfo);
}

/** RFC 7093 section 2, method 1: the leftmost 160 bits of the SHA-256 of the public key. */
function keyId(key: SubjectPublicKeyInfo): ArrayBuffer {
  return new Uint8Array(createHash("sha256").update(Buffer.from(key.subjectPublicKey)).digest().subarray(0, 20)).buffer;
}

function name(organization: string): Name {
  if (organization === "") return new Name([]);
  const value = new AttributeValue({ utf8String: organization });
  return new Name([new RelativeDistinguishedName([new AttributeTypeAndValue({ type: ORGANIZATION, value })])]);
}

/** Sixteen random bytes, positive and without a leading zero (DER wants the shortest form). */
function serialNumber(): ArrayBuffer {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40;
  return new Uint8Array(bytes).buffer;
}
