// SPDX-License-Identifier: Apache-2.0
import { randomInt } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { canonicalIp } from "../../core/ip.ts";
import type { AddressFamily, NativeBinding } from "../../native/binding.ts";
import { type Finding, failed, proved } from "./proof.ts";
import { endpointText } from "./sockets.ts";

const TIMEOUT_MS = 200;
const PORT = 53;
/** RFC 1035 4.1.1. Opcode STATUS: ztunnel answers by itself that it does not do that, and asks no resolver. */
const OPCODE_STATUS = 2 << 11;
const HEADER_BYTES = 12;
/** One question, for the root, of type A and class IN. */
const QUESTION = Buffer.from([0, 0, 1, 0, 1]);
const ANY = { 4: "0.0.0.0", 6: "::" } as const;

/** A datagram to port 53 of an address that is nobody's, or a nameserver's, is answered as if from there. */
export async function dnsUdp(
  binding: NativeBinding,
  netns: number,
  family: AddressFamily,
  nameserver: string,
  real: boolean,
): Promise<Finding> {
  const socket = createSocket(family === 4 ? "udp4" : "udp6");
  try {
    const bound = once(socket, "listening");
    socket.bind({ fd: binding.udpSocket(netns, { family, bind: { address: ANY[family], port: 0 } }) });
    await bound;
    const id = randomInt(0x10000);
    const answer = once(socket, "message", { signal: AbortSignal.timeout(TIMEOUT_MS) });
    socket.send(query(id), PORT, nameserver);
    const [message, from] = (await answer) as [Buffer, { readonly address: string; readonly port: number }];
    const sender = { address: canonicalIp(from.address), port: from.port };
    if (sender.address !== nameserver || sender.port !== PORT) {
      return failed(`the answer comes from ${endpointText(sender)}, not from ${nameserver}`);
    }
    if (message.length < HEADER_BYTES || message.readUInt16BE(0) !== id)
      return failed("the answer is to no question of ours");
    // A real nameserver may have answered itself: only nobody's answer proves who did.
    const whose = real ? "answered, as if by the nameserver asked" : "answered in the pod, though nobody is there";
    return proved(`${endpointText(sender)} is ${whose}`);
  } catch (error) {
    if (error instanceof Error && error.name === "AbortError")
      return failed(`no answer from ${nameserver} within ${TIMEOUT_MS} ms`);
    throw error;
  } finally {
    await new Promise<void>((resolve) => socket.close(resolve));
  }
}

function query(id: number): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt16BE(id, 0);
  header.writeUInt16BE(OPCODE_STATUS, 2);
  header.writeUInt16BE(1, 4);
  return Buffer.concat([header, QUESTION]);
}
