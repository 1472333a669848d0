// SPDX-License-Identifier: Apache-2.0
// What a pod gets while the agent is not there, or not in its right mind.
import {
  chmodSync,
  chownSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { stateText, writeState } from "../../../src/cniserver/published-state.ts";
import { runPlugin } from "../../support/cni-plugin.ts";
import { FakeAgent } from "../../support/fake-agent.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

const BOOT_ID = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
const PREVIOUS = { cniVersion: "1.1.0", ips: [{ address: "10.0.0.2/24" }] };

let dir: ScratchDir;
beforeEach(() => {
  dir = new ScratchDir();
});
afterEach(() => dir[Symbol.dispose]());

const agentSocket = () => dir.file("pluginevent.sock");
const statePath = () => dir.file("ambient-cni-state.json");
const conf = (extra: Record<string, unknown> = {}) =>
  JSON.stringify({
    cniVersion: "1.1.0",
    name: "k8s",
    type: "istio-cni",
    cni_agent_run_dir: dir.path,
    pod_namespace: "istio-cni",
    prevResult: PREVIOUS,
    ...extra,
  });

async function expectPass(extra: Record<string, unknown> = {}): Promise<void> {
  const run = await runPlugin("ADD", conf(extra));
  expect(run).toMatchObject({ status: 0, stdout: JSON.stringify(PREVIOUS) });
  expect(JSON.parse(run.stderr)).toMatchObject({ level: "warn", msg: expect.stringContaining("passes") });
}

async function expectRetry(reason: string, extra: Record<string, unknown> = {}): Promise<void> {
  const run = await runPlugin("ADD", conf(extra));
  expect(run.status).toBe(1);
  expect(JSON.parse(run.stdout)).toMatchObject({
    cniVersion: "1.1.0",
    code: 11,
    msg: expect.stringContaining(reason),
    details: expect.stringContaining("kubectl -n istio-cni get pods -l k8s-app=istio-cni-node"),
  });
}

describe("no socket", () => {
  it("holds the pod back and says where the agent should be", async () => {
    await expectRetry(`${agentSocket()}: No such file or directory`);
  });

  it("holds it back too when the run directory is missing", async () => {
    const gone = dir.file("gone");
    await expectRetry(gone, { cni_agent_run_dir: gone });
  });

  it("lets a namespace pass that was clear since this boot, and no other", async () => {
    await writeState(dir.path, BOOT_ID, ["shopping", "shop", "sho"]);
    await expectPass();
    await writeState(dir.path, BOOT_ID, ["shopping", "sho"]);
    await expectRetry("namespace shop may hold pods of the mesh");
  });

  it("lets nothing pass by the state in strict mode", async () => {
    await writeState(dir.path, BOOT_ID, ["shop"]);
    await expectRetry("agent_away is strict", { agent_away: "strict" });
    await expectPass({ agent_away: "namespace" });
  });

  it("lets pods pass when ambient mode is off", async () => {
    await expectPass({ ambient_enabled: false });
    await expectPass({ ambient_enabled: false, agent_away: "strict" });
  });

  it("lets the agent's own pod and excluded namespaces pass in silence", async () => {
    const own = { CNI_ARGS: "K8S_POD_NAMESPACE=istio-cni;K8S_POD_NAME=istio-cni-node-abcde" };
    for (const agent_away of ["namespace", "strict"]) {
      expect(await runPlugin("ADD", conf({ agent_away }), own)).toMatchObject({ status: 0, stderr: "" });
      expect(await runPlugin("ADD", conf({ agent_away, exclude_namespaces: ["shop"] }))).toMatchObject({
        status: 0,
        stderr: "",
      });
    }
  });

  it("fails neither CHECK nor STATUS nor DEL nor GC", async () => {
    for (const command of ["CHECK", "STATUS", "DEL", "GC"]) {
      const run = await runPlugin(command, conf({ agent_away: "strict" }));
      expect(run).toMatchObject({ status: 0, stdout: "" });
      expect(run.milliseconds).toBeLessThan(1000);
    }
  });
});

describe("a state file is not believed", () => {
  it.each<[string, string, () => void]>([
    ["of another boot", "before this boot", () => writeFileSync(statePath(), stateText("another", ["shop"]))],
    ["without boot id", "schema 1", () => writeFileSync(statePath(), '{"schema":1,"clear":["shop"]}')],
    [
      "of another schema",
      "schema 1",
      () => writeFileSync(statePath(), JSON.stringify({ schema: 2, bootId: BOOT_ID, clear: ["shop"] })),
    ],
    ["that is garbage", "schema 1", () => writeFileSync(statePath(), "\u0000shop")],
    ["that is empty", "schema 1", () => writeFileSync(statePath(), "")],
    [
      "whose list is an object",
      "schema 1",
      () => writeFileSync(statePath(), JSON.stringify({ schema: 1, bootId: BOOT_ID, clear: { shop: true } })),
    ],
    ["cut short", "schema 1", () => truncateSync(good(), 60)],
    ["that its group can write", "only root can write", () => chmodSync(good(), 0o664)],
    ["that everybody can write", "only root can write", () => chmodSync(good(), 0o646)],
    ["of another owner", "only root can write", () => chownSync(good(), 12345, 0)],
    ["beyond its bound", "at most 4194304 bytes", () => truncateSync(good(), (4 << 20) + 1)],
    ["that is a directory", "only root can write", () => mkdirSync(statePath())],
    [
      "behind a symbolic link",
      "symbolic links",
      () => {
        writeFileSync(dir.file("real"), stateText(BOOT_ID, ["shop"]), { mode: 0o644 });
        symlinkSync("real", statePath());
      },
    ],
  ])("%s", async (_what, reason, make) => {
    make();
    await expectRetry(reason);
  });

  function good(): string {
    writeFileSync(statePath(), stateText(BOOT_ID, ["shop"]), { mode: 0o644 });
    return statePath();
  }

  it("but a good one is, up to its bound", async () => {
    good();
    await expectPass();
    const names = Array.from({ length: 80_000 }, (_, i) => `n${i}`.padEnd(63, "x"));
    await writeState(dir.path, BOOT_ID, ["shop", ...names]);
    await expectRetry("may hold pods of the mesh"); // left out, since it sorts behind the bound
    await writeState(dir.path, BOOT_ID, ["shop", ...names.slice(0, 60_000)]);
    await expectPass();
  });
});

describe("an agent that", () => {
  beforeEach(() => writeState(dir.path, BOOT_ID, ["clear"]));
  const clear = { CNI_ARGS: "K8S_POD_NAMESPACE=clear;K8S_POD_NAME=p" };

  async function expectAway(reason: string): Promise<void> {
    await expectRetry(reason);
    expect(await runPlugin("ADD", conf(), clear)).toMatchObject({ status: 0, stdout: JSON.stringify(PREVIOUS) });
    expect(await runPlugin("CHECK", conf())).toMatchObject({ status: 0, stdout: "" });
  }

  async function expectUnintelligible(reason: string): Promise<void> {
    for (const env of [{}, clear]) {
      const run = await runPlugin("ADD", conf(), env);
      expect(run.status).toBe(1);
      expect(JSON.parse(run.stdout)).toMatchObject({ code: 101, msg: expect.stringContaining(reason) });
    }
    expect(await runPlugin("CHECK", conf())).toMatchObject({ status: 0, stdout: "" });
  }

  it("died and left its socket is away", async () => {
    const died = createServer().listen(agentSocket());
    await new Promise<void>((resolve) => died.once("listening", () => resolve()));
    // A kill leaves the socket's file behind; closing would remove it.
    linkSync(agentSocket(), dir.file("kept"));
    await new Promise<void>((resolve) => died.close(() => resolve()));
    renameSync(dir.file("kept"), agentSocket());
    await expectAway("Connection refused");
  });

  it("has a plain file where its socket was is away", async () => {
    writeFileSync(agentSocket(), "");
    await expectAway("Connection refused");
    rmSync(agentSocket());
  });

  it("hangs up at once is away", async () => {
    await using _agent = await FakeAgent.raw(agentSocket(), (socket) => socket.destroy());
    await expectAway(agentSocket());
  });

  it("dies after half an answer is away", async () => {
    await using _agent = await FakeAgent.raw(agentSocket(), (socket) => {
      socket.once("data", () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{"verdict":'));
    });
    await expectAway("closed the connection after");
  });

  it("is still starting counts as away", async () => {
    await using _agent = await FakeAgent.http(agentSocket(), (response) => {
      response.statusCode = 503;
      response.end('{"code":11,"msg":"still reading the cluster (AGENT_STARTING)","away":true}');
    });
    const run = await runPlugin("ADD", conf());
    expect(JSON.parse(run.stdout)).toMatchObject({ code: 11, msg: expect.stringContaining("AGENT_STARTING") });
    expect(await runPlugin("ADD", conf(), clear)).toMatchObject({ status: 0 });
    expect(await runPlugin("CHECK", conf())).toMatchObject({ status: 0 });
  });

  it("refuses is not away: its word holds for clear namespaces too", async () => {
    await using _agent = await FakeAgent.http(agentSocket(), (response) => {
      response.statusCode = 503;
      response.end('{"code":11,"msg":"no ztunnel"}');
    });
    for (const env of [{}, clear]) {
      const run = await runPlugin("ADD", conf(), env);
      expect(JSON.parse(run.stdout)).toEqual({ cniVersion: "1.1.0", code: 11, msg: "no ztunnel" });
    }
  });

  it.each<[string, string]>([
    ["garbage", "\u0000\u0001\u0002garbage\r\n\r\n"],
    ["no status", "HTTP/1.1 OK\r\n\r\n"],
    ["an interim answer", "HTTP/1.1 100 Continue\r\n\r\n"],
    ["another protocol", "HTTP/2.0 200 OK\r\n\r\n"],
    ["two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}"],
    ["a length beyond the bound", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n"],
    ["a negative length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"],
    ["a bad chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
    ["an unknown encoding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"],
    ["a header without name", "HTTP/1.1 200 OK\r\n: x\r\n\r\n"],
  ])("answers with %s is no agent", async (_what, bytes) => {
    await using _agent = await FakeAgent.raw(agentSocket(), (socket) => {
      socket.once("data", () => socket.end(Buffer.from(bytes, "latin1")));
    });
    await expectUnintelligible("no HTTP answer");
  });

  it("never stops answering is cut off at 64 KiB", async () => {
    await using _agent = await FakeAgent.raw(agentSocket(), (socket) => {
      socket.once("data", () => socket.write(`HTTP/1.1 200 OK\r\nX: ${"y".repeat(1 << 20)}`));
    });
    await expectUnintelligible("larger than 65536 bytes");
  });

  it.each<[string, number, string]>([
    ["200 without verdict", 200, "{}"],
    ["200 with a verdict that is a number", 200, '{"verdict":1}'],
    ["200 with garbage", 200, "garbage"],
    ["an error without code", 500, '{"msg":"x"}'],
    ["an error with a code that is text", 500, '{"code":"11","msg":"x"}'],
    ["upstream's 404", 404, "404 page not found\n"],
    ["a verdict with an error's status", 500, '{"verdict":"ambient"}'],
  ])("says %s is not understood", async (_what, status, body) => {
    await using _agent = await FakeAgent.http(agentSocket(), (response) => {
      response.statusCode = status;
      response.end(body);
    });
    await expectUnintelligible(`status ${status}`);
  });

  it("answers in chunks, in single bytes or to the end of the connection is understood", async () => {
    const body = '{"verdict":"ambient"}';
    const answers = [
      `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\n${body.slice(0, 5)}\r\n10\r\n${body.slice(5)}\r\n0\r\nT: r\r\n\r\n`,
      `HTTP/1.0 200 OK\r\n\r\n${body}`,
      `HTTP/1.1 200\ncontent-length:  ${body.length} \n\n${body}`,
    ];
    for (const answer of answers) {
      await using _agent = await FakeAgent.raw(agentSocket(), (socket) => {
        socket.setNoDelay(true);
        socket.once("data", () => {
          for (const byte of answer) socket.write(byte);
          socket.end();
        });
      });
      expect(await runPlugin("ADD", conf())).toMatchObject({ status: 0, stdout: JSON.stringify(PREVIOUS) });
    }
  });

  it("is silent, drips or doesn't read is given up at the deadline: 15 s for ADD, 5 s for CHECK", async () => {
    const dirs = [new ScratchDir(), new ScratchDir(), new ScratchDir()] as const;
    const timers: NodeJS.Timeout[] = [];
    await using _silent = await FakeAgent.http(dirs[0].file("pluginevent.sock"), () => undefined);
    await using _drips = await FakeAgent.raw(dirs[1].file("pluginevent.sock"), (socket) => {
      socket.write("HTTP/1.1 200 OK\r\nX: ");
      timers.push(setInterval(() => socket.write("y"), 50));
    });
    await using _deaf = await FakeAgent.raw(dirs[2].file("pluginevent.sock"), (socket) => socket.pause());
    try {
      const outcomes = await Promise.all(
        dirs.map(async ({ path }) => {
          await writeState(path, BOOT_ID, ["clear"]);
          const text = conf({ cni_agent_run_dir: path });
          return Promise.all([runPlugin("ADD", text), runPlugin("ADD", text, clear), runPlugin("CHECK", text)]);
        }),
      );
      for (const [add, addClear, check] of outcomes) {
        expect(JSON.parse(add.stdout)).toMatchObject({ code: 11, msg: expect.stringContaining("deadline") });
        expect(addClear).toMatchObject({ status: 0, stdout: JSON.stringify(PREVIOUS) });
        expect(check).toMatchObject({ status: 0, stdout: "" });
        expect(add.milliseconds).toBeGreaterThan(14_900);
        expect(add.milliseconds).toBeLessThan(25_000);
        expect(check.milliseconds).toBeGreaterThan(4_900);
        expect(check.milliseconds).toBeLessThan(14_000);
      }
    } finally {
      for (const timer of timers) clearInterval(timer);
      for (const each of dirs) each[Symbol.dispose]();
    }
  });
});

describe("the log file", () => {
  it("is moved aside once it holds 10 MiB", async () => {
    const log = dir.file("istio-cni.log");
    writeFileSync(log, "");
    truncateSync(log, (10 << 20) + 1);
    const runs = await Promise.all(Array.from({ length: 4 }, () => runPlugin("ADD", conf())));
    const aside = readFileSync(`${log}.1`);
    expect(aside.length).toBeGreaterThan(10 << 20);
    const lines = (aside.subarray((10 << 20) + 1).toString("utf8") + readFileSync(log, "utf8")).trim().split("\n");
    expect(lines.sort()).toEqual(runs.map(({ stderr }) => stderr.trim()).sort());
  });

  it("that can't be written changes nothing", async () => {
    mkdirSync(dir.file("istio-cni.log"));
    await expectRetry("No such file");
  });
});
