// SPDX-License-Identifier: Apache-2.0
import { createPublicKey, type KeyObject, verify } from "node:crypto";
import { AsnConvert, AsnProp, AsnPropTypes, AsnType, AsnTypeTypes } from "@peculiar/asn1-schema";
import { AlgorithmIdentifier, Name, SubjectPublicKeyInfo } from "@peculiar/asn1-x509";

const ECDSA_WITH_SHA256 = "1.2.840.10045.4.3.2";
const PEM = /^-----BEGIN CERTIFICATE REQUEST-----\s([A-Za-z0-9+/=\s]+)-----END CERTIFICATE REQUEST-----\s*$/;

/** PKCS #10 (RFC 2986 4.2): what is signed is kept as it came. */
class CertificationRequest {
  info = new ArrayBuffer(0);
  algorithm = new AlgorithmIdentifier();
  signature = new ArrayBuffer(0);
}
AsnType({ type: AsnTypeTypes.Sequence })(CertificationRequest);
AsnProp({ type: AsnPropTypes.Any })(CertificationRequest.prototype, "info");
AsnProp({ type: AlgorithmIdentifier })(CertificationRequest.prototype, "algorithm");
AsnProp({ type: AsnPropTypes.BitString })(CertificationRequest.prototype, "signature");

/** RFC 2986 4.1. Attributes hold what the request says of itself, and nobody takes its word for it. */
class RequestInfo {
  version = 0;
  subject = new Name();
  key = new SubjectPublicKeyInfo();
  attributes = new ArrayBuffer(0);
}
AsnType({ type: AsnTypeTypes.Sequence })(RequestInfo);
AsnProp({ type: AsnPropTypes.Integer })(RequestInfo.prototype, "version");
AsnProp({ type: Name })(RequestInfo.prototype, "subject");
AsnProp({ type: SubjectPublicKeyInfo })(RequestInfo.prototype, "key");
AsnProp({ type: AsnPropTypes.Any, optional: true })(RequestInfo.prototype, "attributes");

/**
 * The public key of a certificate signing request whose sender has the private one.
 * @throws Error that says what is wrong: no PEM, no PKCS #10, another algorithm than ECDSA with SHA-256, a false signature
 */
export function keyOfRequest(pem: string): KeyObject {
  const base64 = PEM.exec(pem)?.[1];
  if (base64 === undefined) throw new Error("the signing request is no PEM of one CERTIFICATE REQUEST");
  let request: CertificationRequest;
  let key: KeyObject;
  try {
    request = AsnConvert.parse(Buffer.from(base64, "base64"), CertificationRequest);
    const info = AsnConvert.parse(request.info, RequestInfo);
    const spki = Buffer.from(AsnConvert.serialize(info.key));
    key = createPublicKey({ key: spki, format: "der", type: "spki" });
  } catch (error) {
    throw new Error("the signing request is no PKCS #10", { cause: error });
  }
  const { algorithm } = request.algorithm;
  if (algorithm !== ECDSA_WITH_SHA256)
    throw new Error(`the signing request is signed by ${algorithm}, not ECDSA with SHA-256`);
  if (!verify("sha256", Buffer.from(request.info), key, Buffer.from(request.signature))) {
    throw new Error("the signing request's signature is not by its key");
  }
  return key;
}
