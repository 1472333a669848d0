// SPDX-License-Identifier: Apache-2.0
// istiod's certificate service (istio.io/api security/v1alpha1/ca.proto), for a ztunnel that was built without a mock
// of it. Whoever asks gets any identity of the sandbox: its root is nobody else's.
import { createSecureServer, type Http2SecureServer, type ServerHttp2Session } from "node:http2";
import type { AddressInfo } from "node:net";
import { fromBinary } from "@bufbuild/protobuf";
import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { type Struct, StructSchema } from "@bufbuild/protobuf/wkt";
import type { CertificateAuthority } from "../identity/authority.ts";
import { parseSpiffeId } from "../identity/spiffe.ts";
import { serveUnary } from "./grpc.ts";
import { keyOfRequest } from "./signing-request.ts";

export const CREATE_CERTIFICATE = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/** Names by which its clients reach it. */
const HOSTS = ["localhost", "127.0.0.1"];
const DEFAULT_LIFE_S = 3600;

interface CertificateRequest {
  readonly csr: string;
  /** s */
  readonly validity: number;
  readonly metadata: Struct | undefined;
}

export class CertificateService {
  private readonly sessions = new Set<ServerHttp2Session>();

  private constructor(
    private readonly server: Http2SecureServer,
    readonly port: number,
  ) {
    server.on("session", (session) => {
      this.sessions.add(session);
      session.on("close", () => this.sessions.delete(session));
      session.on("error", () => session.destroy());
    });
  }

  /** Serves on a free port of this machine's loopback. */
  static async start(authority: CertificateAuthority): Promise<CertificateService> {
    const { key, certificate } = authority.serve(HOSTS);
    const server = createSecureServer({ key, cert: certificate, minVersion: "TLSv1.3", ALPNProtocols: ["h2"] });
    server.on("stream", (stream, headers) => {
      serveUnary(stream, headers, CREATE_CERTIFICATE, (request) => createCertificate(authority, request));
    });
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ host: "127.0.0.1", port: 0 }, resolve);
    });
    return new CertificateService(server, (server.address() as AddressInfo).port);
  }

  close(): void {
    this.server.close();
    for (const session of this.sessions) session.destroy();
  }
}

/** @throws Error that says what is wrong with the request */
function createCertificate(authority: CertificateAuthority, bytes: Uint8Array): Uint8Array {
  const { csr, validity, metadata } = read(bytes);
  const wanted = metadata?.fields.ImpersonatedIdentity?.kind;
  if (wanted?.case !== "stringValue") throw new Error("metadata names no ImpersonatedIdentity");
  const leaf = authority.certify(keyOfRequest(csr), parseSpiffeId(wanted.value), validity * 1000);
  const writer = new BinaryWriter();
  for (const certificate of [leaf, authority.rootCertificate])
    writer.tag(1, WireType.LengthDelimited).string(certificate);
  return writer.finish();
}

function read(bytes: Uint8Array): CertificateRequest {
  let csr = "";
  let validity = 0;
  let metadata: Struct | undefined;
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    if (field === 1 && type === WireType.LengthDelimited) csr = reader.string();
    else if (field === 3 && type === WireType.Varint) validity = Number(reader.int64());
    else if (field === 4 && type === WireType.LengthDelimited) metadata = fromBinary(StructSchema, reader.bytes());
    else reader.skip(type, field);
  }
  return { csr, validity: validity > 0 ? validity : DEFAULT_LIFE_S, metadata };
}
