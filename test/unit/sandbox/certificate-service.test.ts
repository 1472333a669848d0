// SPDX-License-Identifier: Apache-2.0
// The certificate service as ztunnel calls it: an independent gRPC client, signing requests made by openssl.
import { execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { writeFileSync } from "node:fs";
import { connect } from "node:http2";
import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { credentials, makeGenericClientConstructor, type ServiceError } from "@grpc/grpc-js";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CertificateService, CREATE_CERTIFICATE } from "../../../src/sandbox/ca/certificate-service.ts";
import { CertificateAuthority } from "../../../src/sandbox/identity/authority.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

const IDENTITY = "spiffe://cluster.local/ns/shop/sa/web";
const authority = CertificateAuthority.create();
let service: CertificateService;
let scratch: ScratchDir;

beforeAll(async () => {
  scratch = new ScratchDir();
  service = await CertificateService.start(authority);
});
afterAll(() => {
  service.close();
  scratch[Symbol.dispose]();
});

const openssl = (...args: readonly string[]): string =>
  execFileSync("openssl", args, { encoding: "utf8", stdio: "pipe" });

/** A key, and a request for a certificate that claims to be somebody else. */
function request(...algorithm: readonly string[]): { readonly keyPath: string; readonly csr: string } {
  const keyPath = scratch.file(`key-${algorithm.length}`);
  openssl("genpkey", ...algorithm, "-out", keyPath);
  const san = "subjectAltName=critical,URI:spiffe://cluster.local/ns/kube-system/sa/admin";
  return { keyPath, csr: openssl("req", "-new", "-key", keyPath, "-subj", "/O=whoever", "-addext", san) };
}
const EC = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];

interface Asked {
  readonly csr: string;
  readonly validity?: number;
  readonly identity?: string;
}

function encoded({ csr, validity = 86_400, identity }: Asked): Buffer {
  const writer = new BinaryWriter().tag(1, WireType.LengthDelimited).string(csr);
  writer.tag(3, WireType.Varint).int64(validity);
  if (identity !== undefined) {
    // Struct{fields=1: map entry{key=1, value=2: Value{string_value=3}}}
    writer.tag(4, WireType.LengthDelimited).fork().tag(1, WireType.LengthDelimited).fork();
    writer.tag(1, WireType.LengthDelimited).string("ImpersonatedIdentity");
    writer.tag(2, WireType.LengthDelimited).fork().tag(3, WireType.LengthDelimited).string(identity).join();
    writer.join().join();
  }
  return Buffer.from(writer.finish());
}

function chainIn(bytes: Buffer): string[] {
  const reader = new BinaryReader(bytes);
  const chain: string[] = [];
  while (reader.pos < reader.len) {
    expect(reader.tag()).toEqual([1, WireType.LengthDelimited]);
    chain.push(reader.string());
  }
  return chain;
}

const bytes = (buffer: Buffer): Buffer => buffer;
const Client = makeGenericClientConstructor(
  {
    create: {
      path: CREATE_CERTIFICATE,
      requestStream: false,
      responseStream: false,
      requestSerialize: bytes,
      requestDeserialize: bytes,
      responseSerialize: bytes,
      responseDeserialize: bytes,
    },
  },
  "IstioCertificateService",
);

/** One call; rejects with the ServiceError of gRPC. */
async function create(message: Buffer, root = authority.rootCertificate): Promise<string[]> {
  const client = new Client(`localhost:${service.port}`, credentials.createSsl(Buffer.from(root)));
  try {
    return await new Promise((resolve, reject) => {
      const done = (error: ServiceError | null, reply?: Buffer) =>
        error === null && reply !== undefined ? resolve(chainIn(reply)) : reject(error);
      const deadline = Date.now() + 5000;
      client.makeUnaryRequest(CREATE_CERTIFICATE, bytes, bytes, message, { deadline } as never, done as never);
    });
  } finally {
    client.close();
  }
}

test("a request is answered by a certificate for its key and the identity that was asked for", async () => {
  const { keyPath, csr } = request(...EC);
  const [leaf = "", root = "", ...more] = await create(encoded({ csr, identity: IDENTITY }));
  expect([root, more]).toEqual([authority.rootCertificate, []]);
  const certificate = new X509Certificate(leaf);
  expect(certificate.subjectAltName).toBe(`URI:${IDENTITY}`);
  expect(certificate.publicKey.export({ type: "spki", format: "pem" })).toBe(
    openssl("pkey", "-in", keyPath, "-pubout"),
  );
  expect(certificate.keyUsage).toEqual(["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"]);
  // It asked for a day.
  expect(Date.parse(certificate.validTo) - Date.now()).toBeLessThanOrEqual(3_600_000);
  const [leafPath, rootPath] = [scratch.file("leaf.pem"), scratch.file("root.pem")];
  writeFileSync(leafPath, leaf);
  writeFileSync(rootPath, root);
  expect(openssl("verify", "-x509_strict", "-CAfile", rootPath, leafPath)).toBe(`${leafPath}: OK\n`);
});

test.each<readonly [string, () => Asked, RegExp]>([
  ["no identity", () => ({ csr: request(...EC).csr }), /no ImpersonatedIdentity/],
  ["an identity of another form", () => ({ csr: request(...EC).csr, identity: "spiffe://x/y" }), /not a SPIFFE id/],
  ["no PEM", () => ({ csr: "hello", identity: IDENTITY }), /no PEM/],
  ["a PEM of something else", () => ({ csr: authority.rootCertificate, identity: IDENTITY }), /no PEM/],
  ["garbage in PEM", () => ({ csr: wrapped(Buffer.from("garbage")), identity: IDENTITY }), /no PKCS #10/],
  ["an RSA key", () => ({ csr: request("-algorithm", "RSA").csr, identity: IDENTITY }), /not ECDSA/],
  ["a signature of another key", () => ({ csr: forged(), identity: IDENTITY }), /not by its key/],
])("%s is refused", async (_name, ask, told) => {
  await expect(create(encoded(ask()))).rejects.toMatchObject({ code: 3, details: expect.stringMatching(told) });
});

const wrapped = (der: Buffer): string =>
  `-----BEGIN CERTIFICATE REQUEST-----\n${der.toString("base64")}\n-----END CERTIFICATE REQUEST-----\n`;

/** A request with a bit of its subject turned. */
function forged(): string {
  const der = Buffer.from(request(...EC).csr.replace(/-----[^-]+-----/g, ""), "base64");
  const at = der.indexOf("whoever");
  der[at] = (der[at] ?? 0) ^ 1;
  return wrapped(der);
}

test("what is not the service's root is not trusted, and TLS 1.2 is not spoken", async () => {
  const other = CertificateAuthority.create().rootCertificate;
  await expect(create(encoded({ csr: "", identity: IDENTITY }), other)).rejects.toMatchObject({ code: 14 });
  const session = connect(`https://localhost:${service.port}`, {
    ca: authority.rootCertificate,
    maxVersion: "TLSv1.2",
  });
  await expect(new Promise((_resolve, reject) => session.once("error", reject))).rejects.toThrow(/version|alert/i);
});

test("another method, and a body that is no message, are refused and harm nobody", async () => {
  const session = connect(`https://localhost:${service.port}`, { ca: authority.rootCertificate });
  const status = (path: string, body: Buffer) =>
    new Promise((resolve, reject) => {
      const stream = session.request({ ":method": "POST", ":path": path, "content-type": "application/grpc" });
      stream.on("response", (headers) => resolve(headers["grpc-status"]));
      stream.on("error", reject);
      stream.end(body);
    });
  expect(await status("/other", Buffer.alloc(5))).toBe("12");
  expect(await status(CREATE_CERTIFICATE, Buffer.from("x"))).toBe("3");
  expect(await status(CREATE_CERTIFICATE, Buffer.from([1, 0, 0, 0, 0]))).toBe("12");
  expect(await status(CREATE_CERTIFICATE, Buffer.from([0, 0, 0, 0, 2, 0x0a, 0x7f]))).toBe("3");
  await expect(status(CREATE_CERTIFICATE, Buffer.alloc(100_000))).rejects.toThrow();
  session.close();
  await expect(create(encoded({ csr: request(...EC).csr, identity: IDENTITY }))).resolves.toHaveLength(2);
});
