// SPDX-License-Identifier: Apache-2.0
// Whoever listens on the agent's socket, the command ends in time, within bounds, and says what happened.
import { createServer, type Socket } from "node:net";
import { expect, test } from "vitest";
import { AgentClient } from "../../../src/cli/source/agent-client.ts";
import { PODS, STATUS } from "../../fixtures/reports.ts";
import { cli, withAgent } from "../../support/cli-env.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

/** Runs `pods` against a listener that treats each connection as `peer` does. */
async function against(peer: (socket: Socket) => void, timeout = "300ms") {
  using scratch = new ScratchDir();
  const path = scratch.file("s");
  const open = new Set<Socket>();
  const server = createServer((socket) => {
    open.add(socket);
    socket.on("error", () => undefined);
    peer(socket);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  try {
    return await cli(["log", "--socket", path, "--timeout", timeout]);
  } finally {
    for (const socket of open) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
}

const answer = (body: string, length = Buffer.byteLength(body)) =>
  `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${length}\r\n\r\n${body}`;

test.each<[string, (socket: Socket) => void, RegExp]>([
  ["never answers", () => undefined, /does not answer within 300 ms/],
  ["hangs up at once", (socket) => socket.destroy(), /hangs up before/],
  ["sends half an answer and hangs up", (socket) => socket.end(answer('{"pods":', 100)), /hangs up before/],
  [
    "sends half an answer and waits",
    (socket) => socket.write(answer('{"pods":', 100)),
    /does not answer within 300 ms/,
  ],
  ["sends garbage", (socket) => socket.end("\u0000\u0001 what?\r\n\r\n"), /Parse Error/],
  ["speaks of something else", (socket) => socket.end(answer('{"hello":1}')), /no document "log"/],
  ["is no JSON", (socket) => socket.end(answer("<html>")), /no JSON: "<html>"/],
  [
    "is of another schema",
    (socket) => socket.end(answer(JSON.stringify({ ...PODS, schemaVersion: 2 }))),
    /schemaVersion is 2, and this program reads 1/,
  ],
  [
    "fails without a reason",
    (socket) => socket.end("HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}"),
    /HTTP status 500 and no reason/,
  ],
])("a peer that %s", async (_, peer, sentence) => {
  const { status, stdout, stderr } = await against(peer);
  expect(stderr).toMatch(sentence);
  expect(stderr.trimEnd().split("\n")).toHaveLength(1);
  expect([status, stdout]).toEqual([3, ""]);
});

test("a question that takes long has a deadline of its own", async () => {
  using scratch = new ScratchDir();
  const path = scratch.file("s");
  const server = createServer((socket) => {
    socket.on("error", () => undefined).resume();
    setTimeout(() => socket.end(answer("{}")), 400);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  try {
    const client = new AgentClient(path, 100, { verify: 20_000 });
    await expect(client.ask({ name: "pods" })).rejects.toThrow("does not answer within 100 ms");
    expect(await client.ask({ name: "verify" })).toEqual({});
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
});

test("a peer that drips", async () => {
  const drips: NodeJS.Timeout[] = [];
  const began = performance.now();
  const { status, stderr } = await against((socket) => {
    socket.write(answer("", 1_000_000));
    drips.push(setInterval(() => socket.write("x"), 20));
  });
  for (const drip of drips) clearInterval(drip);
  expect([status, stderr]).toEqual([3, expect.stringContaining("does not answer within 300 ms")]);
  expect(performance.now() - began).toBeLessThan(5000);
});

test("a peer that sends a gigabyte", async () => {
  let sent = 0;
  const chunk = Buffer.alloc(1 << 20, "x");
  const before = process.memoryUsage().rss;
  const { status, stderr } = await against((socket) => {
    socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${1 << 30}\r\n\r\n`);
    const more = () => {
      while (sent < 1 << 30 && !socket.destroyed) {
        sent += chunk.length;
        if (!socket.write(chunk)) return;
      }
    };
    socket.on("drain", more);
    more();
  }, "20s");
  expect([status, stderr]).toEqual([3, expect.stringContaining("an answer of more than 16 MiB")]);
  expect(sent).toBeLessThan(64 << 20);
  expect(process.memoryUsage().rss - before).toBeLessThan(200 << 20);
});

test("nobody there, and a path that leads nowhere", async () => {
  using scratch = new ScratchDir();
  for (const path of [scratch.file("none"), `${scratch.file("none")}/${"deeper/".repeat(40)}`]) {
    const { status, stdout, stderr } = await cli(["log", "--socket", path]);
    expect(status, stderr).toBe(3);
    const [sentence, remedy, ...rest] = stderr.split("\n");
    expect([stdout, sentence, rest]).toEqual(["", expect.stringContaining(path), [""]]);
    expect(remedy).toContain("kubectl -n istio-system get pods -l k8s-app=istio-cni-node");
  }
});

test("terminal sequences in an answer are shown, not obeyed", async () => {
  const evil = "\u001b]0;owned\u0007\u001b[2J\r\n\u202e";
  const status = { ...STATUS, problems: [{ object: evil, code: evil, message: evil, attempts: 1, nextTryMs: null }] };
  const pods = { ...PODS, pods: PODS.pods.map((pod) => ({ ...pod, name: evil, detail: evil, phase: evil })) };
  await withAgent({ status, pods }, async (socket) => {
    for (const argv of [["status"], ["pods", "--all", "-o", "wide"]]) {
      const { stdout } = await cli([...argv, "--socket", socket]);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
      expect(stdout).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/);
      expect(stdout).toContain("\\u001b");
    }
  });
});
