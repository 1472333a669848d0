// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { LogServer } from "../../../src/cniserver/log-server.ts";
import { LogRecorder } from "../../support/recorder.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";
import { send } from "../../support/unix-client.ts";

let dir: ScratchDir;
let logger: LogRecorder;
let server: LogServer;

beforeEach(async () => {
  dir = new ScratchDir();
  logger = new LogRecorder();
  server = new LogServer(dir.path, logger);
  await server.listen();
});
afterEach(async () => {
  await server.stop();
  dir[Symbol.dispose]();
});

const post = (body: string) => send(dir.file("log.sock"), "POST", "/log", body);

describe("LogServer", () => {
  it("writes the entries of upstream's plugin and ours into the agent's log", async () => {
    const entries = [
      // As zap encodes it in istio-cni.
      '{"level":"info","time":"2026-01-02T03:04:05.000000Z","scope":"cni-plugin","msg":"excluded\\n","pod":"shop/cart-0"}',
      '{"level":"error","time":"t","scope":"cni-plugin","msg":"failed","code":11,"nested":{"a":1}}',
      '{"level":"fatal","msg":"end"}',
      '{"msg":7}',
    ];
    expect((await post(JSON.stringify(entries))).status).toBe(200);
    expect(logger.lines).toEqual([
      {
        level: "info",
        scope: "cni-plugin",
        message: "excluded",
        fields: { pluginTime: "2026-01-02T03:04:05.000000Z", pod: "shop/cart-0" },
      },
      {
        level: "error",
        scope: "cni-plugin",
        message: "failed",
        fields: { pluginTime: "t", code: 11, nested: '{"a":1}' },
      },
      { level: "error", scope: "cni-plugin", message: "end", fields: {} },
      { level: "info", scope: "cni-plugin", message: "7", fields: {} },
    ]);
  });

  it("bounds what one entry brings along", async () => {
    const entry = {
      msg: "m".repeat(10_000),
      ...Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`k${i}`, i])),
    };
    expect((await post(JSON.stringify([JSON.stringify(entry)]))).status).toBe(200);
    expect(logger.lines[0]?.message).toHaveLength(4099);
    expect(Object.keys(logger.lines[0]?.fields ?? {})).toHaveLength(32);
  });

  it.each([
    ["garbage", "\u0000{"],
    ["no array", '{"level":"info"}'],
    ["objects instead of strings", '[{"level":"info"}]'],
    ["strings that are no JSON", '["x"]'],
    ["strings that are no objects", '["[1]"]'],
    ["too many entries", JSON.stringify(Array(1001).fill("{}"))],
    ["a body beyond its bound", `["${"x".repeat(2 << 20)}"]`],
  ])("refuses %s", async (_what, body) => {
    const answer = await post(body);
    expect(answer.status).toBe(400);
    expect(answer.body).not.toBe("");
    expect(logger.lines.filter(({ level }) => level !== "debug")).toEqual([]);
  });

  it("serves nothing else", async () => {
    expect((await send(dir.file("log.sock"), "GET", "/log")).status).toBe(404);
    expect((await send(dir.file("log.sock"), "POST", "/other", "[]")).status).toBe(404);
  });
});
