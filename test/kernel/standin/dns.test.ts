// SPDX-License-Identifier: Apache-2.0
// DNS through 15053, asked as an application asks: at the resolver's own address.
import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import { createServer, type Server } from "node:net";
import * as dnsPacket from "dns-packet";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { native } from "../../../src/native/load.ts";
import { SERVICE, VIP } from "./mesh.ts";
import type { TestPod } from "./pods.ts";
import { dial } from "./tcp.ts";
import { World } from "./world.ts";

let world: World;
let client: TestPod;
let resolver: TestPod;
let upstream: Upstream;

beforeAll(async () => {
  world = await World.create();
  client = world.pod("client");
  resolver = world.pod("outsider");
  upstream = await Upstream.open(resolver);
});

afterAll(async () => {
  upstream.close();
  await world[Symbol.asyncDispose]();
});

/** The cluster's resolver: knows `known.example`, needs TCP for `long.example`, denies the rest. */
class Upstream {
  readonly clients: string[] = [];

  private constructor(
    private readonly udp: UdpSocket,
    private readonly tcp: Server,
  ) {
    udp.on("message", (message, from) => {
      this.clients.push(`udp ${from.address}`);
      udp.send(dnsPacket.encode(answerTo(dnsPacket.decode(message), false)), from.port, from.address);
    });
    tcp.on("connection", (socket) => {
      socket.on("error", () => {});
      socket.once("data", (chunk: Buffer) => {
        this.clients.push(`tcp ${socket.remoteAddress}`);
        socket.end(dnsPacket.streamEncode(answerTo(dnsPacket.streamDecode(chunk), true)));
      });
    });
  }

  static async open(pod: TestPod): Promise<Upstream> {
    const bind = { address: pod.ipv4, port: 53 };
    const udp = createSocket("udp4");
    udp.bind({ fd: native().udpSocket(pod.netns.fd, { family: 4, bind }) });
    const tcp = createServer();
    const listening = once(tcp, "listening");
    tcp.listen({ fd: native().tcpListen(pod.netns.fd, { family: 4, bind }) });
    await listening;
    return new Upstream(udp, tcp);
  }

  close(): void {
    this.udp.close();
    this.tcp.close();
  }
}

function answerTo(query: dnsPacket.Packet, whole: boolean): dnsPacket.Packet {
  const [question] = query.questions ?? [];
  const base = { type: "response", id: query.id ?? 0, questions: query.questions ?? [] } as const;
  const flags = dnsPacket.RECURSION_DESIRED | dnsPacket.RECURSION_AVAILABLE;
  const name = question?.name ?? "";
  if (name === "known.example" && question?.type === "A") {
    return { ...base, flags, answers: [{ type: "A", name, data: "192.0.2.7", ttl: 60 }] };
  }
  if (name === "long.example" && question?.type === "TXT") {
    if (!whole) return { ...base, flags: flags | dnsPacket.TRUNCATED_RESPONSE };
    const answers = Array.from({ length: 40 }, (_, n) => ({
      type: "TXT" as const,
      name,
      data: `${n}`.repeat(50),
      ttl: 60,
    }));
    return { ...base, flags, answers };
  }
  return { ...base, flags: flags | 3 };
}

interface Reply {
  readonly rcode: number;
  readonly authoritative: boolean;
  readonly truncated: boolean;
  readonly answers: string[];
  /** Who the application thinks answered. */
  readonly from: string;
}

function readReply(message: dnsPacket.Packet, from: string): Reply {
  const flags = message.flags ?? 0;
  return {
    rcode: flags & 0xf,
    authoritative: (flags & dnsPacket.AUTHORITATIVE_ANSWER) !== 0,
    truncated: (flags & dnsPacket.TRUNCATED_RESPONSE) !== 0,
    answers: (message.answers ?? []).map((each) =>
      "data" in each ? `${each.name} ${each.type} ${"ttl" in each ? each.ttl : ""} ${String(each.data)}` : each.type,
    ),
    from,
  };
}

function question(name: string, type: dnsPacket.RecordType): dnsPacket.Packet {
  return { type: "query", id: 4711, flags: dnsPacket.RECURSION_DESIRED, questions: [{ name, type }] };
}

async function askUdp(name: string, type: dnsPacket.RecordType, family: 4 | 6 = 4): Promise<Reply> {
  const socket = createSocket(family === 4 ? "udp4" : "udp6");
  const bind = { address: family === 4 ? "0.0.0.0" : "::", port: 0 };
  socket.bind({ fd: native().udpSocket(client.netns.fd, { family, bind }) });
  try {
    const reply = once(socket, "message", { signal: AbortSignal.timeout(8000) });
    socket.send(dnsPacket.encode(question(name, type)), 53, family === 4 ? resolver.ipv4 : resolver.ipv6);
    const [message, from]: [Buffer, { address: string; port: number }] = (await reply) as never;
    const decoded = dnsPacket.decode(message);
    expect(decoded.id).toBe(4711);
    return readReply(decoded, `${from.address} ${from.port}`);
  } finally {
    socket.close();
  }
}

async function askTcp(name: string, type: dnsPacket.RecordType): Promise<Reply> {
  const end = await dial(client, 4, resolver.ipv4, 53);
  const { address, port } = end.remote;
  const chunks: Buffer[] = [];
  const done = once(end.socket, "end");
  end.socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  end.socket.write(dnsPacket.streamEncode(question(name, type)));
  end.finish();
  await done;
  return readReply(dnsPacket.streamDecode(Buffer.concat(chunks)), `${address} ${port}`);
}

describe.each([4, 6] as const)("a service of the mesh, asked over IPv%s", (family) => {
  it("is answered from its addresses, by the resolver as far as the application can tell", async () => {
    const from = `${family === 4 ? resolver.ipv4 : resolver.ipv6} 53`;
    expect(await askUdp(SERVICE, "A", family)).toEqual({
      rcode: 0,
      authoritative: true,
      truncated: false,
      answers: [`${SERVICE} A 30 ${VIP[4]}`],
      from,
    });
    expect((await askUdp(SERVICE, "AAAA", family)).answers).toEqual([`${SERVICE} AAAA 30 ${VIP[6]}`]);
  });
});

it("short names mean what they mean in the client's namespace", async () => {
  for (const name of ["server", "server.default", "server.default.svc"]) {
    expect(await askUdp(name, "A")).toMatchObject({ rcode: 0, answers: [`${name} A 30 ${VIP[4]}`] });
  }
});

it("a search domain too many becomes a CNAME", async () => {
  const name = `${SERVICE}.default.svc.cluster.local`;
  expect((await askUdp(name, "A")).answers).toEqual([`${name} CNAME 30 ${SERVICE}`, `${SERVICE} A 30 ${VIP[4]}`]);
});

it("over TCP the answer is the same", async () => {
  expect(await askTcp(SERVICE, "A")).toMatchObject({
    rcode: 0,
    authoritative: true,
    answers: [`${SERVICE} A 30 ${VIP[4]}`],
    from: `${resolver.ipv4} 53`,
  });
});

it("other names are asked upstream, from the pod's own address", async () => {
  upstream.clients.length = 0;
  const reply = await askUdp("known.example", "A");
  expect(reply).toMatchObject({ rcode: 0, authoritative: false, from: `${resolver.ipv4} 53` });
  expect(reply.answers).toEqual(["known.example A 60 192.0.2.7"]);
  expect(upstream.clients).toContain(`udp ${client.ipv4}`);
});

it("so are other types, over TCP when the answer is long", async () => {
  upstream.clients.length = 0;
  const reply = await askTcp("long.example", "TXT");
  expect(reply.rcode).toBe(0);
  expect(reply.answers).toHaveLength(40);
  expect(upstream.clients).toEqual([`udp ${client.ipv4}`, `tcp ${client.ipv4}`]);
});

it("what upstream denies is denied", async () => {
  expect(await askUdp("unknown.example", "A")).toMatchObject({ rcode: 3, answers: [] });
});
