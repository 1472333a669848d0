// SPDX-License-Identifier: Apache-2.0
import type { Child } from "../sys/child.ts";
import type { SandboxNode } from "./node.ts";

const MAX_BYTES = 32 << 20;

/** Bytes that pass the node's bridge while it is held: what an eavesdropper between pods would see. */
export class Wire {
  private readonly chunks: Buffer[] = [];
  private size = 0;

  private constructor(private readonly child: Child) {
    child.process.stdout?.on("data", (chunk: Buffer) => {
      if (this.size + chunk.length > MAX_BYTES) return;
      this.chunks.push(chunk);
      this.size += chunk.length;
    });
  }

  /** Starts to listen on an interface of the node; resolves when packets are being kept. */
  static async listen(node: SandboxNode, device: string): Promise<Wire> {
    const child = node.spawn(
      ["tcpdump", "-i", device, "-w", "-", "-U", "--immediate-mode", "-Z", "root", "-s", "0", "tcp"],
      {
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    const wire = new Wire(child);
    await new Promise<void>((resolve, reject) => {
      let text = "";
      child.process.stderr?.on("data", (chunk: Buffer) => {
        text += chunk.toString();
        if (text.includes("listening on")) resolve();
      });
      child.exited.then(() => reject(new Error(`tcpdump ended: ${text.trim()}`)), reject);
    });
    return wire;
  }

  /** Does something with everything that crosses an interface of the node kept. */
  static async during<T>(
    node: SandboxNode,
    device: string,
    body: () => Promise<T>,
  ): Promise<{ readonly result: T; readonly bytes: Buffer }> {
    const wire = await Wire.listen(node, device);
    try {
      const result = await body();
      return { result, bytes: await wire.stop() };
    } catch (error) {
      await wire.stop();
      throw error;
    }
  }

  /** Stops and returns all bytes seen, in pcap framing. */
  async stop(): Promise<Buffer> {
    // The kernel hands packets over in blocks; give the last one time to arrive.
    await new Promise((resolve) => setTimeout(resolve, 150));
    await this.child.end(1000);
    return Buffer.concat(this.chunks);
  }
}

/** Whether a TCP packet to this port is in the capture: IPv4 or IPv6 header, then the ports. */
export function hasPort(pcap: Buffer, port: number): boolean {
  const GLOBAL_HEADER = 24;
  const RECORD_HEADER = 16;
  const ETHERNET_HEADER = 14;
  for (let at = GLOBAL_HEADER; at + RECORD_HEADER <= pcap.length; ) {
    const length = pcap.readUInt32LE(at + 8);
    const packet = pcap.subarray(at + RECORD_HEADER, at + RECORD_HEADER + length);
    at += RECORD_HEADER + length;
    if (packet.length < ETHERNET_HEADER + 24) continue;
    const ip = packet.subarray(ETHERNET_HEADER);
    const tcp = (ip[0] ?? 0) >> 4 === 6 ? 40 : ((ip[0] ?? 0) & 15) * 4;
    if (ip.length >= tcp + 4 && ip.readUInt16BE(tcp + 2) === port) return true;
  }
  return false;
}
