// SPDX-License-Identifier: Apache-2.0
// Port 15008 with a peer that has a certificate of the mesh and asks for what it should not get, and with
// peers that have none. (A real ztunnel trusts its own FAKE_CA only, so this runs with the stand-in.)
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type ClientHttp2Session, connect, type IncomingHttpHeaders, type OutgoingHttpHeaders } from "node:http2";
import { Socket } from "node:net";
import { type TLSSocket, connect as tlsConnect } from "node:tls";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { native } from "../../../src/native/load.ts";
import { CertificateAuthority, type Credentials } from "../../../src/sandbox/identity/authority.ts";
import { HbonePool } from "../../../src/sandbox/ztunnel/hbone-pool.ts";
import { SERVICE } from "./mesh.ts";
import type { TestPod } from "./pods.ts";
import { dial as dialPlain, Listener } from "./tcp.ts";
import { World } from "./world.ts";

let world: World;
let server: TestPod;
let outsider: TestPod;
let authority: CertificateAuthority;
let caller: Credentials;

beforeAll(async () => {
  world = await World.create();
  server = world.pod("server");
  outsider = world.pod("outsider");
  authority = CertificateAuthority.fromPem(readFileSync(world.scratch.file("authority.pem"), "utf8"));
  caller = authority.issue({ trustDomain: "cluster.local", namespace: "default", serviceAccount: "caller" });
});

afterAll(() => world[Symbol.asyncDispose]());

/** The next connection of the server is one made now: nothing came through before it. */
async function nobodyElse(listener: Listener): Promise<void> {
  const near = await dialPlain(outsider, 4, server.ipv4, 8080);
  near.send("marker");
  const far = await listener.accept();
  await far.expect("marker");
  near.finish();
  await far.end();
  far.finish();
  await near.end();
}

async function dial(): Promise<Socket> {
  const { ipv4: address } = server;
  const fd = await native().tcpConnect(outsider.netns.fd, { family: 4, address, port: 15008, timeout: 5000 });
  return new Socket({ fd });
}

interface Identity {
  readonly key?: string;
  readonly cert?: string;
}

async function secure({ key, cert }: Identity = { key: caller.key, cert: caller.certificate }): Promise<TLSSocket> {
  const socket = tlsConnect({
    socket: await dial(),
    ca: authority.rootCertificate,
    ALPNProtocols: ["h2"],
    checkServerIdentity: () => undefined,
    ...(key === undefined || cert === undefined ? {} : { key, cert }),
  });
  await once(socket, "secureConnect");
  return socket;
}

async function ask(headers: OutgoingHttpHeaders): Promise<number | undefined> {
  const socket = await secure();
  const session: ClientHttp2Session = connect("https://server", { createConnection: () => socket });
  try {
    const stream = session.request(headers, { endStream: false });
    const [answer]: IncomingHttpHeaders[] = await once(stream, "response");
    stream.on("error", () => {});
    stream.close();
    return answer?.[":status"] as number | undefined;
  } finally {
    session.destroy();
  }
}

const connectTo = (authorityText: string) => ask({ ":method": "CONNECT", ":authority": authorityText });

describe("CONNECT", () => {
  it.each([
    ["the pod's address and port", () => `${server.ipv4}:8080`, 200],
    ["a service's name and port", () => `${SERVICE}:80`, 200],
    ["another address", () => `${outsider.ipv4}:8080`, 400],
    ["loopback", () => "127.0.0.1:8080", 400],
    ["the pod's IPv6 address over IPv4", () => `[${server.ipv6}]:8080`, 400],
    ["no port", () => server.ipv4, 400],
    ["a port beyond 65535", () => `${server.ipv4}:65536`, 400],
    ["the proxy's own port", () => `${server.ipv4}:15006`, 503],
    ["a service that does not exist", () => "nobody.default.svc.cluster.local:80", 503],
    ["a port the service does not have", () => `${SERVICE}:81`, 503],
    ["a port that nobody listens on", () => `${server.ipv4}:8081`, 503],
  ])("to %s", async (_what, target, status) => {
    using listener = await Listener.open(server, 8080);
    expect(await connectTo(target())).toBe(status);
    if (status === 200) expect((await listener.accept()).remote.address).toBe(outsider.ipv4);
    await nobodyElse(listener);
  });

  it("is the only method", async () => {
    expect(await ask({ ":method": "GET", ":authority": `${server.ipv4}:8080`, ":path": "/", ":scheme": "https" })).toBe(
      400,
    );
  });
});

describe("a peer that is not of the mesh", () => {
  /** TLS 1.3 clients learn of a refusal only by reading: the connection must end, unanswered. */
  async function ended(identity: Identity): Promise<void> {
    const socket = await secure(identity).catch(() => undefined);
    if (socket === undefined) return;
    const session = connect("https://server", { createConnection: () => socket });
    session.on("error", () => {});
    const stream = session.request({ ":method": "CONNECT", ":authority": `${server.ipv4}:8080` });
    const outcome = await new Promise<string>((resolve) => {
      stream.once("response", () => resolve("answered"));
      stream.once("error", () => resolve("refused"));
      stream.once("close", () => resolve("refused"));
    });
    session.destroy();
    expect(outcome).toBe("refused");
  }

  it("without a certificate is cut off", async () => {
    using listener = await Listener.open(server, 8080);
    await ended({});
    await nobodyElse(listener);
  });

  it("with a certificate of another root is cut off", async () => {
    using listener = await Listener.open(server, 8080);
    const identity = { trustDomain: "cluster.local", namespace: "default", serviceAccount: "caller" };
    const { key, certificate } = CertificateAuthority.create().issue(identity);
    await ended({ key, cert: certificate });
    await nobodyElse(listener);
  });

  it("with an identity of another trust domain is cut off", async () => {
    using listener = await Listener.open(server, 8080);
    const identity = { trustDomain: "elsewhere", namespace: "default", serviceAccount: "caller" };
    const { key, certificate } = authority.issue(identity);
    await ended({ key, cert: certificate });
    await nobodyElse(listener);
    await world.ztunnel.line((line) => line.includes("did not present the expected trust domain"));
  });

  it("and is not a server's identity either", async () => {
    const pool = new HbonePool({ dial, rootCertificate: authority.rootCertificate, maxStreams: 10, idleMs: 1000 });
    const tunnel = (peerIdentity: string) =>
      pool.open({
        source: caller,
        peerIdentity,
        client: outsider.ipv4,
        server: { address: server.ipv4, port: 15008 },
        target: `${server.ipv4}:8080`,
        headers: {},
      });
    using listener = await Listener.open(server, 8080);
    await expect(tunnel("spiffe://cluster.local/ns/default/sa/client-sa")).rejects.toThrow(
      "peer did not present spiffe://cluster.local/ns/default/sa/client-sa, but [spiffe://cluster.local/ns/default/sa/server-sa]",
    );
    await nobodyElse(listener);
    const stream = await tunnel("spiffe://cluster.local/ns/default/sa/server-sa");
    const far = await listener.accept();
    // The pod sees the peer that asked, not the proxy.
    expect(far.remote.address).toBe(outsider.ipv4);
    stream.end("hello");
    expect(await far.end()).toBe("hello");
    far.finish();
    pool.destroy();
  });
});
