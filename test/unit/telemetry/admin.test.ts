// SPDX-License-Identifier: Apache-2.0
import { connect, createServer, type Server } from "node:net";
import { afterEach, expect, test } from "vitest";
import type { Clock } from "../../../src/core/clock.ts";
import { codeOf } from "../../../src/core/errors.ts";
import type { Logger } from "../../../src/core/ports/telemetry.ts";
import { Admin } from "../../../src/telemetry/admin.ts";
import { LoopLag } from "../../../src/telemetry/loop-lag.ts";
import { PromMetrics } from "../../../src/telemetry/metrics.ts";

const quiet: Logger = { debug() {}, info() {}, warn() {}, error() {}, child: () => quiet };
const admins: Admin[] = [];
const blockers: Server[] = [];

class TestClock implements Clock {
  time = 0;
  #due: { at: number; task: () => void }[] = [];
  now(): number {
    return this.time;
  }
  after(ms: number, task: () => void): () => void {
    const timer = { at: this.time + ms, task };
    this.#due.push(timer);
    return () => {
      this.#due = this.#due.filter((one) => one !== timer);
    };
  }
  /** Jumps to a time as a blocked event loop does: what is due runs once, late. */
  jump(to: number): void {
    this.time = to;
    const ready = this.#due.filter(({ at }) => at <= to);
    this.#due = this.#due.filter(({ at }) => at > to);
    for (const { task } of ready) task();
  }
  get pending(): number {
    return this.#due.length;
  }
}

afterEach(async () => {
  for (const admin of admins.splice(0)) await admin.stop();
  for (const server of blockers.splice(0)) await new Promise((resolve) => server.close(resolve));
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0);
  await new Promise((resolve) => server.once("listening", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

type Options = ConstructorParameters<typeof Admin>[0];

/** A free port may be taken by another test before we bind it: then others are tried. */
async function admin(over: Partial<Options> = {}, tries = 3): ReturnType<typeof startAdmin> {
  try {
    return await startAdmin(over);
  } catch (error) {
    if (tries === 1 || codeOf(error) !== "PORT_UNAVAILABLE" || "healthPort" in over) throw error;
    return admin(over, tries - 1);
  }
}

async function startAdmin(over: Partial<Options>) {
  const [monitoringPort, healthPort] = [await freePort(), await freePort()];
  const clock = new TestClock();
  const made = new Admin({
    monitoringPort,
    healthPort,
    metrics: new PromMetrics("v"),
    missing: () => [],
    clock,
    logger: quiet,
    ...over,
  });
  admins.push(made);
  await made.start();
  return {
    admin: made,
    clock,
    metricsAt: `http://127.0.0.1:${monitoringPort}`,
    healthAt: `http://127.0.0.1:${healthPort}`,
  };
}

test("/metrics on the monitoring port, and only there", async () => {
  const { metricsAt, healthAt } = await admin();
  const response = await fetch(`${metricsAt}/metrics?x=y`);
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toContain("text/plain");
  expect(await response.text()).toContain("# TYPE ztunnel_connected gauge");
  expect((await fetch(`${healthAt}/metrics`)).status).toBe(404);
  expect((await fetch(`${metricsAt}/readyz`)).status).toBe(404);
});

test("/readyz: 503 names what is missing, until nothing is", async () => {
  let missing = ["the plugin is not installed", "no list of pods yet"];
  const { healthAt } = await admin({ missing: () => missing });
  const before = await fetch(`${healthAt}/readyz`);
  expect(before.status).toBe(503);
  expect(before.headers.get("content-type")).toBe("application/json");
  expect(await before.json()).toEqual({ ready: false, missing });
  missing = [];
  const after = await fetch(`${healthAt}/readyz`);
  expect([after.status, await after.json()]).toEqual([200, { ready: true }]);
});

test("/healthz: a blocked event loop shows for ten seconds", async () => {
  const { healthAt, clock } = await admin();
  clock.jump(600);
  expect(await (await fetch(`${healthAt}/healthz`)).json()).toEqual({ healthy: true, eventLoopLagMs: 100 });
  clock.jump(7000);
  const sick = await fetch(`${healthAt}/healthz`);
  expect(sick.status).toBe(503);
  expect(await sick.json()).toEqual({ healthy: false, eventLoopLagMs: 5900 });
  for (let at = 7500; at <= 17_500; at += 500) clock.jump(at);
  const well = await fetch(`${healthAt}/healthz`);
  expect([well.status, await well.json()]).toEqual([200, { healthy: true, eventLoopLagMs: 0 }]);
});

test("a port of zero or less is not served", async () => {
  const { metricsAt, healthAt } = await admin({ monitoringPort: 0 });
  await expect(fetch(`${metricsAt}/metrics`)).rejects.toThrow();
  expect((await fetch(`${healthAt}/healthz`)).status).toBe(200);
  const none = await admin({ monitoringPort: -1, healthPort: -1 });
  await expect(fetch(`${none.healthAt}/healthz`)).rejects.toThrow();
});

test("only GET and HEAD; unknown paths name the known ones; members of Object are no paths", async () => {
  const { healthAt } = await admin();
  expect((await fetch(`${healthAt}/readyz`, { method: "POST", body: "x".repeat(100_000) })).status).toBe(405);
  const head = await fetch(`${healthAt}/readyz`, { method: "HEAD" });
  expect([head.status, await head.text()]).toEqual([200, ""]);
  expect(await (await fetch(`${healthAt}/`)).json()).toEqual({ error: "known paths: /healthz, /readyz" });
  expect((await fetch(`${healthAt}/constructor`)).status).toBe(404);
});

test("connections that others open and leave do not keep probes out", async () => {
  const { healthAt } = await admin();
  const idle = Array.from({ length: 200 }, () => connect(Number(new URL(healthAt).port), "127.0.0.1"));
  for (const socket of idle) socket.on("error", () => undefined);
  await Promise.all(idle.map((socket) => new Promise((resolve) => socket.once("connect", resolve))));
  for (let probe = 0; probe < 3; probe++) {
    const answer = await fetch(`${healthAt}/healthz`, { headers: { connection: "close" } });
    expect(answer.status).toBe(200);
  }
  for (const socket of idle) socket.destroy();
});

test("a failing collector is a 500, not a crash", async () => {
  const { metricsAt } = await admin({
    metrics: { contentType: "text/plain", text: () => Promise.reject(new Error("secret detail")) },
  });
  const response = await fetch(`${metricsAt}/metrics`);
  expect(response.status).toBe(500);
  expect(await response.text()).not.toContain("secret");
});

test("a taken port is a clear error, and nothing stays open", async () => {
  const taken = createServer().listen(0);
  blockers.push(taken);
  await new Promise((resolve) => taken.once("listening", resolve));
  const address = taken.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  const monitoringPort = await freePort();
  await expect(admin({ monitoringPort, healthPort: address.port })).rejects.toMatchObject({
    code: "PORT_UNAVAILABLE",
    message: expect.stringContaining(`port ${address.port}`),
    remedy: expect.stringContaining("AMBIENT_CNI_HEALTH_PORT"),
  });
  await expect(fetch(`http://127.0.0.1:${monitoringPort}/metrics`)).rejects.toThrow();
});

test("stop closes connections that are open, and the timer", async () => {
  const { admin: one, healthAt, clock } = await admin();
  const socket = connect(Number(new URL(healthAt).port), "127.0.0.1");
  await new Promise((resolve) => socket.once("connect", resolve));
  const closed = new Promise((resolve) => socket.once("close", resolve));
  socket.on("error", () => undefined);
  await one.stop();
  await closed;
  expect(clock.pending).toBe(0);
  await expect(fetch(`${healthAt}/healthz`)).rejects.toThrow();
});

test("loop lag forgets after ten seconds and keeps no more than the window", () => {
  const clock = new TestClock();
  const lag = new LoopLag(clock);
  expect(lag.worst()).toBe(0);
  lag.start();
  lag.start();
  expect(clock.pending).toBe(1);
  clock.jump(800);
  expect(lag.worst()).toBe(300);
  for (let at = 1300; at < 10_800; at += 500) clock.jump(at);
  expect(lag.worst()).toBe(300);
  clock.jump(10_801);
  expect(lag.worst()).toBeLessThan(300);
  lag.stop();
  expect(clock.pending).toBe(0);
});
