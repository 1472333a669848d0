// SPDX-License-Identifier: Apache-2.0
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { relay } from "../../../src/sandbox/ztunnel/relay.ts";

interface Line {
  /** The end a test holds. */
  readonly outer: Socket;
  /** The end the relay holds: paused, half-open. */
  readonly inner: Socket;
}

async function line(): Promise<Line> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const outer = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  const [inner]: Socket[] = await once(server, "connection");
  if (inner === undefined) throw new Error("no connection");
  await once(outer, "connect");
  server.close();
  outer.on("error", () => {});
  return { outer, inner };
}

let client: Line;
let server: Line;
let sent = 0;
let received = 0;

beforeEach(async () => {
  [client, server] = [await line(), await line()];
  [sent, received] = [0, 0];
});

afterEach(() => {
  for (const each of [client.outer, client.inner, server.outer, server.inner]) each.destroy();
});

function start(): Promise<string | undefined> {
  return relay(client.inner, server.inner, {
    addSent: (bytes) => {
      sent += bytes;
    },
    addReceived: (bytes) => {
      received += bytes;
    },
  });
}

async function all(socket: Socket): Promise<string> {
  let text = "";
  socket.on("data", (chunk: Buffer) => {
    text += chunk.toString();
  });
  await once(socket, "end");
  return text;
}

describe("relay", () => {
  it("moves both ways, counts, and is over when both are", async () => {
    const done = start();
    client.outer.end("question");
    expect(await all(server.outer)).toBe("question");
    server.outer.end("the answer");
    expect(await all(client.outer)).toBe("the answer");
    expect(await done).toBeUndefined();
    expect([sent, received]).toEqual([8, 10]);
    expect([client.inner.destroyed, server.inner.destroyed]).toEqual([true, true]);
  });

  it("a reset of one side is a FIN for the other, and no error", async () => {
    const done = start();
    client.outer.resetAndDestroy();
    expect(await all(server.outer)).toBe("");
    server.outer.end();
    expect(await done).toBeUndefined();
  });

  it("a side that is gone ends the other at its next byte", async () => {
    const done = start();
    client.outer.resetAndDestroy();
    await all(server.outer);
    const closed = once(server.outer, "close");
    server.outer.write("too late");
    expect(await done).toBeUndefined();
    server.outer.end();
    await closed;
  });

  it("a side that breaks while it is full lets go of the other", async () => {
    const done = start();
    client.outer.on("data", () => {});
    const block = Buffer.alloc(1 << 20);
    // Nobody reads at the server: sooner or later the client is stopped.
    while (client.outer.write(block)) await sleep(1);
    await sleep(300);
    server.outer.resetAndDestroy();
    await once(client.outer, "end");
    client.outer.destroy();
    expect(await done).toBeUndefined();
  });

  it("ends that were closed before it began are over at once", async () => {
    client.inner.destroy();
    server.inner.destroy();
    expect(await start()).toBeUndefined();
  });
});
