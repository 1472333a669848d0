// SPDX-License-Identifier: Apache-2.0
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer, type Server, type Socket } from "node:net";

export interface AgentRequest {
  readonly method: string;
  readonly path: string;
  readonly body: string;
}

/** An agent that the test plays: it answers at will and remembers what it was asked. */
export class FakeAgent implements AsyncDisposable {
  readonly requests: AgentRequest[] = [];

  private constructor(
    private readonly server: Server,
    private readonly sockets: Set<Socket>,
  ) {}

  /** Answers well-formed HTTP. */
  static http(
    path: string,
    answer: (response: ServerResponse, request: AgentRequest) => void = (response) => {
      response.end('{"verdict":"ambient"}');
    },
  ): Promise<FakeAgent> {
    const http = createHttpServer((request: IncomingMessage, response) => {
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        const seen = {
          method: request.method ?? "",
          path: request.url ?? "",
          body: Buffer.concat(chunks).toString("utf8"),
        };
        agent.requests.push(seen);
        answer(response, seen);
      });
    });
    const agent = new FakeAgent(http, new Set());
    return agent.listen(path);
  }

  /** Answers whatever bytes the test likes. */
  static raw(path: string, answer: (socket: Socket) => void): Promise<FakeAgent> {
    const agent = new FakeAgent(createServer({ allowHalfOpen: true }, answer), new Set());
    return agent.listen(path);
  }

  private async listen(path: string): Promise<FakeAgent> {
    this.server.on("connection", (socket: Socket) => {
      this.sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => this.sockets.delete(socket));
    });
    await new Promise<void>((resolve, reject) => {
      this.server.on("error", reject);
      this.server.listen(path, () => resolve());
    });
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise<void>((resolve) => this.server.close(() => resolve()));
  }
}
