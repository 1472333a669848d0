// SPDX-License-Identifier: Apache-2.0
import { statSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import * as v from "valibot";
import { afterEach, beforeEach, expect, test } from "vitest";
import { AgentError } from "../../../src/core/errors.ts";
import { DebugServer, posted, type StreamSink } from "../../../src/telemetry/debug-server.ts";
import { silent } from "../../fakes/parts.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";
import { send, sendRaw } from "../../support/unix-client.ts";

let dir: ScratchDir;
let path: string;
let server: DebugServer;
let changed: unknown[];
const releases: (() => void)[] = [];
const streams: { readonly sink: StreamSink; stopped: boolean }[] = [];

const routes = () => ({
  plain: { get: (query: URLSearchParams) => ({ pod: query.get("pod") }) },
  levels: { get: () => [], post: posted(v.strictObject({ level: v.string() }), (body) => changed.push(body)) },
  refuses: {
    get: () => {
      throw new AgentError("POD_NOT_FOUND", "no such pod", "look again");
    },
  },
  endless: {
    stream: (query: URLSearchParams, sink: StreamSink) => {
      if (query.has("refused")) throw new AgentError("BAD_REQUEST", "no");
      const one = { sink, stopped: false };
      streams.push(one);
      sink("first\n");
      return () => {
        one.stopped = true;
      };
    },
  },
  breaks: { get: () => Promise.reject(new Error("a bug")) },
  large: { get: () => "x".repeat(17 << 20) },
  slow: { get: () => new Promise<void>((resolve) => releases.push(resolve)), deadlineMs: 50 },
});

beforeEach(async () => {
  dir = new ScratchDir();
  path = dir.file("run/debug.sock");
  changed = [];
  server = new DebugServer({ path, routes: routes(), logger: silent });
  await server.listen();
});
afterEach(async () => {
  for (const end of releases.splice(0)) end();
  streams.length = 0;
  await server.stop();
  dir[Symbol.dispose]();
});

test("only root may connect", () => {
  expect(statSync(path).mode & 0o777).toBe(0o600);
});

test("a document is read, by name and query", async () => {
  expect(await send(path, "GET", "/v1/plain?pod=a%2Fb")).toEqual({ status: 200, body: '{"pod":"a/b"}\n' });
});

test("only POST changes something, and only what its schema allows", async () => {
  expect((await send(path, "POST", "/v1/plain", "{}")).status).toBe(405);
  expect((await send(path, "DELETE", "/v1/levels")).status).toBe(405);
  expect((await send(path, "GET", "/v1/levels")).status).toBe(200);
  expect(changed).toEqual([]);
  for (const body of ["", "level", "[]", '{"level":1}', '{"level":"debug","more":1}', "null"]) {
    const { status, body: answer } = await send(path, "POST", "/v1/levels", body);
    expect(status, body).toBe(400);
    expect(JSON.parse(answer)).toMatchObject({ error: { code: "BAD_REQUEST" } });
  }
  expect((await send(path, "POST", "/v1/levels", "x".repeat(70_000))).status).toBe(400);
  expect(changed).toEqual([]);
  expect((await send(path, "POST", "/v1/levels", '{"level":"debug"}')).status).toBe(200);
  expect(changed).toEqual([{ level: "debug" }]);
});

test.each([
  ["/index.html", 404, "NOT_FOUND"],
  ["/v1/", 404, "NOT_FOUND"],
  ["/v1/constructor", 404, "NOT_FOUND"],
  ["/v1/../v1/plain", 404, "NOT_FOUND"],
  [`/v1/plain?${"x".repeat(3000)}`, 400, "BAD_REQUEST"],
  ["/v1/refuses", 422, "POD_NOT_FOUND"],
  ["/v1/breaks", 500, "UNKNOWN"],
  ["/v1/large", 422, "ANSWER_TOO_LARGE"],
  ["/v1/slow", 504, "DEADLINE"],
])("%.30s is refused with %i", async (url, status, code) => {
  const answer = await send(path, "GET", url);
  expect(answer.status).toBe(status);
  expect(JSON.parse(answer.body)).toMatchObject({ error: { code } });
});

test("work that outlives its deadline counts until it ends: no more of it than eight at once", async () => {
  await server.stop();
  server = new DebugServer({
    path,
    routes: { slow: { get: () => new Promise<void>((resolve) => releases.push(resolve)), deadlineMs: 20 } },
    logger: silent,
  });
  await server.listen();
  const eight = await Promise.all(Array.from({ length: 8 }, () => send(path, "GET", "/v1/slow")));
  expect(eight.map(({ status }) => status)).toEqual(Array(8).fill(504));
  expect((await send(path, "GET", "/v1/slow")).status).toBe(503);
  for (const end of releases.splice(0)) end();
  await new Promise((resolve) => setImmediate(resolve));
  expect((await send(path, "GET", "/v1/slow")).status).toBe(504);
});

test("garbage and connections that say nothing harm nobody", async () => {
  expect(await sendRaw(path, "\u0000\u0001\r\n\r\n")).toMatch(/^HTTP\/1.1 400 /);
  expect(await sendRaw(path, `GET / HTTP/1.1\r\nX: ${"y".repeat(10_000)}\r\n\r\n`)).toMatch(/^HTTP\/1.1 431 /);
  const mute = Array.from({ length: 20 }, () => connect(path));
  expect((await send(path, "GET", "/v1/plain")).status).toBe(200);
  for (const socket of mute) socket.destroy();
});

test("a socket that a killed agent left is replaced, and one that ends leaves its successor's", async () => {
  const successor = new DebugServer({ path, routes: { who: { get: () => "successor" } }, logger: silent });
  await successor.listen();
  await server.stop();
  expect(await send(path, "GET", "/v1/who")).toEqual({ status: 200, body: '"successor"\n' });
  await successor.stop();
  await expect(send(path, "GET", "/v1/who")).rejects.toThrow(/ENOENT/);
});

test("what is no socket is left alone", async () => {
  await server.stop();
  writeFileSync(path, "mine");
  await expect(server.listen()).rejects.toThrow(/is a file, not a socket/);
});

/** A reader of the stream; paused, it takes nothing but what the kernel keeps for it. */
async function reader(paused = false): Promise<{ readonly text: () => string; readonly end: () => void }> {
  const count = streams.length;
  const socket = connect(path);
  let text = "";
  socket.on("error", () => undefined);
  if (paused) socket.pause();
  else socket.on("data", (chunk) => (text += chunk.toString()));
  socket.write("GET /v1/endless HTTP/1.1\r\nHost: localhost\r\n\r\n");
  await expect.poll(() => streams.length).toBe(count + 1);
  return { text: () => text, end: () => socket.destroy() };
}

test("a stream goes on until its reader goes", async () => {
  const one = await reader();
  const [stream] = streams;
  expect(stream?.sink("second\n")).toBe(true);
  await expect.poll(one.text).toMatch(/^HTTP\/1.1 200 (?:.|\n|\r)*first\n(?:.|\n|\r)*second\n/);
  expect(stream?.stopped).toBe(false);
  one.end();
  await expect.poll(() => stream?.stopped).toBe(true);
  expect(stream?.sink("to nobody\n")).toBe(false);
});

test("a reader who never reads is refused more, and costs a bounded buffer", async () => {
  const one = await reader(true);
  const [stream] = streams;
  const text = "x".repeat(64 * 1024);
  let taken = 0;
  await expect
    .poll(
      () => {
        if (stream?.sink(text)) taken += 1;
        return stream?.sink("");
      },
      { interval: 1 },
    )
    .toBe(false);
  expect(taken * text.length).toBeLessThan(4 << 20);
  one.end();
  await expect.poll(() => stream?.stopped).toBe(true);
});

test("streams leave room for questions, and end with the server", async () => {
  const readers = [];
  for (let i = 0; i < 16; i++) readers.push(await reader());
  expect(await send(path, "GET", "/v1/endless")).toMatchObject({
    status: 503,
    body: expect.stringContaining("16 streams"),
  });
  expect((await send(path, "GET", "/v1/plain")).status).toBe(200);
  expect((await send(path, "POST", "/v1/endless", "{}")).status).toBe(405);
  await server.stop();
  await expect.poll(() => streams.every(({ stopped }) => stopped)).toBe(true);
});

test("a stream that can't begin is an answer like any other", async () => {
  expect(await send(path, "GET", "/v1/endless?refused=1")).toMatchObject({ status: 400 });
});
