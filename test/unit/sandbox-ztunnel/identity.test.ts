// SPDX-License-Identifier: Apache-2.0
import { X509Certificate } from "node:crypto";
import { describe, expect, it } from "vitest";
import { CertificateAuthority } from "../../../src/sandbox/identity/authority.ts";
import { parseSpiffeId, spiffeId, spiffeIdsOf } from "../../../src/sandbox/identity/spiffe.ts";

const identity = { trustDomain: "cluster.local", namespace: "default", serviceAccount: "a" };
const HOUR = 3_600_000;

describe("SPIFFE ids", () => {
  it("read back what was written", () => {
    expect(spiffeId(identity)).toBe("spiffe://cluster.local/ns/default/sa/a");
    expect(parseSpiffeId(spiffeId(identity))).toEqual(identity);
  });

  it.each(["", "a/b", "a b", "a?b", "ä"])("are not made of %j", (serviceAccount) => {
    expect(() => spiffeId({ ...identity, serviceAccount })).toThrow(JSON.stringify(serviceAccount));
  });

  it.each(["", "spiffe://cluster.local", "spiffe://cluster.local/ns/a/sa/b/c", "https://cluster.local/ns/a/sa/b"])(
    "are not %j",
    (text) => {
      expect(() => parseSpiffeId(text)).toThrow(JSON.stringify(text));
    },
  );

  it("come from URI names only, and not from names that contain one", () => {
    const id = spiffeId(identity);
    expect(spiffeIdsOf(`URI:${id}`)).toEqual([id]);
    expect(spiffeIdsOf(`DNS:a, URI:${id}, URI:https://x`)).toEqual([id]);
    expect(spiffeIdsOf(`DNS:"a, URI:${id}"`)).toEqual([]);
    expect(spiffeIdsOf(`DNS:"a, URI:${id}, DNS:b"`)).toEqual([]);
    expect(spiffeIdsOf(`DNS:"a\\", URI:${id}, DNS:b", URI:${id}`)).toEqual([id]);
    expect(spiffeIdsOf(`IP Address:10.0.0.1, email:a@b, URI:${id}`)).toEqual([id]);
    expect(spiffeIdsOf(undefined)).toEqual([]);
  });
});

describe("the authority", () => {
  it("signs certificates that name the workload, for both sides of TLS, for an hour", () => {
    const now = Date.now();
    const authority = CertificateAuthority.create(now);
    const root = new X509Certificate(authority.rootCertificate);
    const credentials = authority.issue(identity, now);
    const leaf = new X509Certificate(credentials.certificate);
    expect(leaf.verify(root.publicKey)).toBe(true);
    expect(leaf.checkIssued(root)).toBe(true);
    expect(leaf.ca).toBe(false);
    expect(root.ca).toBe(true);
    expect(spiffeIdsOf(leaf.subjectAltName)).toEqual([credentials.identity]);
    expect(leaf.keyUsage).toEqual(["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"]);
    expect(Math.abs(Date.parse(leaf.validTo) - now - HOUR)).toBeLessThan(2000);
    expect(Date.parse(leaf.validFrom)).toBeLessThan(now);
    expect(credentials.renewAt).toBe(now + HOUR / 2);
  });

  it("never gives the same key or serial number twice", () => {
    const authority = CertificateAuthority.create();
    const serials = Array.from({ length: 20 }, () => new X509Certificate(authority.issue(identity).certificate));
    expect(new Set(serials.map((each) => each.serialNumber)).size).toBe(20);
    expect(new Set(serials.map((each) => each.fingerprint256)).size).toBe(20);
  });

  it("is the same after a round through PEM", () => {
    const authority = CertificateAuthority.create();
    const copy = CertificateAuthority.fromPem(authority.toPem());
    const leaf = new X509Certificate(copy.issue(identity).certificate);
    expect(leaf.verify(new X509Certificate(authority.rootCertificate).publicKey)).toBe(true);
  });

  it("refuses PEM that does not hold both of its halves", () => {
    const [one, two] = [CertificateAuthority.create(), CertificateAuthority.create()];
    const keyOf = (pem: string) => pem.slice(0, pem.indexOf("-----BEGIN CERTIFICATE"));
    expect(() => CertificateAuthority.fromPem(one.rootCertificate)).toThrow("no private key");
    expect(() => CertificateAuthority.fromPem(keyOf(one.toPem()))).toThrow("no certificate");
    expect(() => CertificateAuthority.fromPem(keyOf(one.toPem()) + two.rootCertificate)).toThrow(
      "don't belong together",
    );
  });
});
