// SPDX-License-Identifier: Apache-2.0
import { randomInt } from "node:crypto";
import type { Socket as UdpSocket } from "node:dgram";
import type { Socket } from "node:net";
import { canonicalIp, familyOf } from "../../core/ip.ts";
import type { Endpoint } from "../../native/binding.ts";
import { readMessages, writeMessage } from "./dns-stream.ts";
import type { PodSockets } from "./pod-sockets.ts";

const TIMEOUT_MS = 5000;
/** TC in the third byte of a header (RFC 1035 4.1.1). */
const TRUNCATED = 0x02;

/**
 * Asks the upstream resolver from inside the pod's netns, over UDP from a random port, then over TCP when
 * the answer was cut. The answer is passed on as it is, under the client's id. Undefined: no answer in 5 s.
 */
export async function forwardQuery(
  sockets: PodSockets,
  upstream: Endpoint,
  query: Buffer,
): Promise<Buffer | undefined> {
  const id = randomInt(0x10000);
  const question = Buffer.from(query);
  question.writeUInt16BE(id, 0);
  const overUdp = await ask(await udpSocket(sockets, upstream), upstream, question, id);
  const truncated = ((overUdp?.[2] ?? 0) & TRUNCATED) !== 0;
  const answer = truncated ? await askTcp(await sockets.connect(upstream), question, id) : overUdp;
  if (answer === undefined) return undefined;
  const own = Buffer.from(answer);
  own.writeUInt16BE(query.readUInt16BE(0), 0);
  return own;
}

function udpSocket(sockets: PodSockets, upstream: Endpoint): Promise<UdpSocket> {
  return sockets.udp(familyOf(upstream.address) === 6 ? "::" : "0.0.0.0", 0);
}

function ask(socket: UdpSocket, upstream: Endpoint, question: Buffer, id: number): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const done = (answer: Buffer | undefined) => {
      clearTimeout(timer);
      socket.close();
      resolve(answer);
    };
    const timer = setTimeout(done, TIMEOUT_MS, undefined);
    socket.on("message", (message, from) => {
      const fromUpstream = from.port === upstream.port && canonicalIp(from.address) === upstream.address;
      if (fromUpstream && message.length >= 12 && message.readUInt16BE(0) === id) done(message);
    });
    socket.once("error", () => done(undefined));
    socket.send(question, upstream.port, upstream.address, (error) => {
      if (error !== null) done(undefined);
    });
  });
}

function askTcp(socket: Socket, question: Buffer, id: number): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const done = (answer: Buffer | undefined) => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(TIMEOUT_MS, () => done(undefined));
    socket.once("error", () => done(undefined));
    socket.once("close", () => done(undefined));
    readMessages(socket, (message) => {
      if (message.length >= 12 && message.readUInt16BE(0) === id) done(message);
    });
    writeMessage(socket, question);
  });
}
