// SPDX-License-Identifier: Apache-2.0
import { connect, createServer, type Server, type Socket } from "node:net";
import { native } from "../native/load.ts";
import { openNetns } from "../native/netns.ts";

/**
 * Lets programs in a network namespace reach a server on this machine's loopback: a listener inside
 * the netns whose connections are carried over unchanged.
 */
export class Doorway {
  private readonly sockets = new Set<Socket>();

  private constructor(private readonly server: Server) {}

  /** Opens `address`:`port` inside the netns at `netnsPath`, leading to the same port out here. */
  static async open(netnsPath: string, port: number, address = "127.0.0.1"): Promise<Doorway> {
    using netns = openNetns(netnsPath);
    const fd = native().tcpListen(netns.fd, { family: 4, bind: { address, port }, reuseAddress: true });
    const server = createServer();
    const doorway = new Doorway(server);
    server.on("connection", (inner) => doorway.carry(inner, connect({ host: "127.0.0.1", port })));
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ fd }, resolve);
    });
    return doorway;
  }

  private carry(inner: Socket, outer: Socket): void {
    for (const [socket, other] of [
      [inner, outer],
      [outer, inner],
    ] as const) {
      this.sockets.add(socket);
      socket.on("error", () => other.destroy());
      socket.on("close", () => {
        this.sockets.delete(socket);
        other.destroy();
      });
      socket.pipe(other);
    }
  }

  close(): void {
    this.server.close();
    for (const socket of this.sockets) socket.destroy();
  }
}
