// SPDX-License-Identifier: Apache-2.0
// The program that runs inside a sandbox pod: an HTTP server and an echo server that say who they are
// and whom they see, and a client that is told over stdin what to do.

import { Resolver } from "node:dns/promises";
import { once } from "node:events";
import { createServer as createHttpServer, request } from "node:http";
import { connect, createServer, type Server, type Socket } from "node:net";
import { createInterface } from "node:readline";
import { canonicalIp } from "../../core/ip.ts";
import { type AppCommand, type AppReply, type AppRequest, ECHO_PORT, type Exchange, HTTP_PORT } from "./protocol.ts";

const seen = (address: string | undefined, port: number | undefined): string =>
  address === undefined ? "" : `${canonicalIp(address)}:${port ?? 0}`;

function serveHttp(name: string): Server {
  return createHttpServer((incoming, response) => {
    const { remoteAddress, remotePort, localAddress, localPort } = incoming.socket;
    response.setHeader("connection", "close");
    response.end(
      JSON.stringify({
        server: name,
        clientSeen: seen(remoteAddress, remotePort),
        serverSeen: seen(localAddress, localPort),
        marker: incoming.headers["x-marker"] ?? "",
      }),
    );
  }).listen({ host: "::", port: HTTP_PORT });
}

function serveEcho(name: string): Server {
  return createServer((socket) => {
    socket.on("error", () => socket.destroy());
    const { remoteAddress, remotePort, localAddress, localPort } = socket;
    const clientSeen = seen(remoteAddress, remotePort);
    socket.write(`${JSON.stringify({ server: name, clientSeen, serverSeen: seen(localAddress, localPort) })}\n`);
    socket.pipe(socket);
  }).listen({ host: "::", port: ECHO_PORT });
}

/** Kept connections and the lines that arrived on them. */
const kept = new Map<string, { socket: Socket; lines: AsyncIterator<string> }>();

async function nextLine(lines: AsyncIterator<string>): Promise<string> {
  const { value, done } = await lines.next();
  if (done === true) throw Object.assign(new Error("the connection was closed"), { code: "ECLOSED" });
  return value;
}

async function open(name: string, host: string, port: number): Promise<Exchange> {
  const began = performance.now();
  const socket = connect({ host, port });
  await new Promise<void>((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("error", reject);
  });
  socket.on("error", () => socket.destroy());
  const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
  kept.set(name, { socket, lines });
  const greeting = JSON.parse(await nextLine(lines)) as Pick<Exchange, "server" | "clientSeen" | "serverSeen">;
  return {
    ...greeting,
    clientPeer: seen(socket.remoteAddress, socket.remotePort),
    clientLocal: seen(socket.localAddress, socket.localPort),
    milliseconds: performance.now() - began,
  };
}

function fetchOnce(url: string, marker: string): Promise<Exchange> {
  const began = performance.now();
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { agent: false, headers: { "x-marker": marker } }, (response) => {
      let body = "";
      const { remoteAddress, remotePort, localAddress, localPort } = response.socket;
      const clientPeer = seen(remoteAddress, remotePort);
      const clientLocal = seen(localAddress, localPort);
      response.on("data", (chunk: Buffer) => {
        body += chunk.toString();
      });
      response.on("error", reject);
      response.on("end", () => {
        try {
          const { server, clientSeen, serverSeen } = JSON.parse(body) as Exchange;
          resolve({ server, clientSeen, serverSeen, clientPeer, clientLocal, milliseconds: performance.now() - began });
        } catch (error) {
          reject(error);
        }
      });
    });
    outgoing.on("error", reject);
    outgoing.end();
  });
}

async function perform(command: AppCommand): Promise<Exchange | readonly string[] | string> {
  switch (command.op) {
    case "fetch":
      return fetchOnce(command.url, command.marker);
    case "open":
      return open(command.name, command.host, command.port);
    case "say": {
      const connection = kept.get(command.name);
      if (connection === undefined) throw new Error(`no connection ${command.name}`);
      connection.socket.write(`${command.line}\n`);
      return nextLine(connection.lines);
    }
    case "close":
      kept.get(command.name)?.socket.destroy();
      kept.delete(command.name);
      return "closed";
    case "resolve": {
      const resolver = new Resolver({ timeout: 2000, tries: 1 });
      resolver.setServers([command.server.includes(":") ? `[${command.server}]` : command.server]);
      return command.family === 4 ? resolver.resolve4(command.host) : resolver.resolve6(command.host);
    }
  }
}

async function answer({ id, timeoutMs, command }: AppRequest): Promise<AppReply> {
  const began = performance.now();
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<never>((_resolve, reject) => {
    const late = Object.assign(new Error(`no answer within ${timeoutMs} ms`), { code: "ETIMEDOUT" });
    timer = setTimeout(() => reject(late), timeoutMs);
  });
  try {
    return { id, ok: true, value: await Promise.race([perform(command), deadline]) };
  } catch (error) {
    const { code = "UNKNOWN", message } = error as NodeJS.ErrnoException;
    return { id, ok: false, code, message, milliseconds: performance.now() - began };
  } finally {
    clearTimeout(timer);
  }
}

/** Serves and obeys until stdin ends. `name` is what the servers call themselves. */
export function runApp(name: string): void {
  const servers = [serveHttp(name), serveEcho(name)];
  const lines = createInterface({ input: process.stdin });
  lines.on("line", (line) => {
    void answer(JSON.parse(line) as AppRequest).then((reply) => process.stdout.write(`${JSON.stringify(reply)}\n`));
  });
  lines.on("close", () => process.exit(0));
  // listen() has not bound when it returns.
  void Promise.all(servers.map((server) => once(server, "listening"))).then(() => process.stdout.write("ready\n"));
}
