// SPDX-License-Identifier: Apache-2.0
// How a ztunnel comes and goes while connections are open.
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { native } from "../../../src/native/load.ts";
import type { TestPod } from "./pods.ts";
import { dial, type End, Listener } from "./tcp.ts";
import { CAPTURED, World } from "./world.ts";

let world: World;
let client: TestPod;
let server: TestPod;
let outsider: TestPod;

beforeEach(async () => {
  world = await World.create({ CONNECTION_TERMINATION_DEADLINE: "3s" });
  client = world.pod("client");
  server = world.pod("server");
  outsider = world.pod("outsider");
});

afterEach(() => world[Symbol.asyncDispose]());

async function open(listener: Listener, from: TestPod): Promise<[End, End]> {
  const near = await dial(from, 4, server.ipv4, 8080);
  const far = await listener.accept();
  await talk(near, far);
  return [near, far];
}

async function talk(near: End, far: End): Promise<void> {
  near.send("ping");
  await far.expect("ping");
  far.send("pong");
  await near.expect("pong");
}

async function refused(from: TestPod): Promise<string> {
  return dial(from, 4, server.ipv4, 8080).then(
    () => "connected",
    (error: NodeJS.ErrnoException) => error.code ?? error.message,
  );
}

it("del cuts what is open, in both directions, and closes the ports", async () => {
  using listener = await Listener.open(server, 8080);
  const pairs = [await open(listener, client), await open(listener, outsider)];
  expect(await world.zds.del(server)).toBe("");
  for (const [near, far] of pairs) {
    expect(await near.end()).toBe("");
    expect(await far.end()).toBe("");
    near.finish();
    far.finish();
  }
  expect(await refused(outsider)).toBe("ECONNREFUSED");
  const cut = await world.ztunnel.connection({ direction: "inbound", "dst.workload": "server" });
  expect(cut.error).toBe("connection closed due to connection drain");
});

describe("SIGTERM", () => {
  it("lets open connections end by themselves, takes no new ones, and exits with the last", async () => {
    using listener = await Listener.open(server, 8080);
    const pairs = [await open(listener, client), await open(listener, outsider)];
    world.ztunnel.signal("SIGTERM");
    await world.zds.end();
    await world.ztunnel.until(
      async () => refused(outsider),
      (answer) => answer === "ECONNREFUSED",
    );
    for (const [near, far] of pairs) {
      await talk(near, far);
      near.finish();
      await far.end();
      far.finish();
      await near.end();
    }
    const began = performance.now();
    expect(await world.ztunnel.exited).toBe(0);
    expect(performance.now() - began).toBeLessThan(2500);
  });

  it("cuts what is still open after the deadline", async () => {
    using listener = await Listener.open(server, 8080);
    const pairs = [await open(listener, client), await open(listener, outsider)];
    const began = performance.now();
    world.ztunnel.signal("SIGTERM");
    await sleep(1000);
    for (const [near, far] of pairs) await talk(near, far);
    expect(await world.ztunnel.exited).toBe(0);
    expect(performance.now() - began).toBeGreaterThan(2900);
    for (const [near, far] of pairs) {
      expect(await near.end()).toBe("");
      expect(await far.end()).toBe("");
      near.finish();
      far.finish();
    }
  });
});

describe("a rolling update", () => {
  it("keeps open connections through the old one and loses no new one", async () => {
    // Without it, connections that wait in the old listener's queue when it closes are reset: the kernel
    // moves them to the other listener of the port only on demand.
    for (const name of CAPTURED) native().sysctlSet(world.pod(name).netns.fd, "net/ipv4/tcp_migrate_req", "1");
    using listener = await Listener.open(server, 8080);
    const [near, far] = await open(listener, client);
    listener.echo("server");
    const { ztunnel: next } = await world.another();
    await using _next = next;
    const outcomes = { hbone: new Map<string, number>(), plain: new Map<string, number>() };
    let running = true;
    const load = async (from: TestPod, counts: Map<string, number>) => {
      while (running) {
        const outcome = await exchange(from).catch((error: unknown) => String(error));
        counts.set(outcome, (counts.get(outcome) ?? 0) + 1);
      }
    };
    const loads = [1, 2, 3, 4].flatMap(() => [load(client, outcomes.hbone), load(outsider, outcomes.plain)]);
    await sleep(300);
    world.ztunnel.signal("SIGTERM");
    await sleep(700);
    await talk(near, far);
    near.finish();
    await far.end();
    far.finish();
    expect(await near.end()).toBe("");
    expect(await world.ztunnel.exited).toBe(0);
    await sleep(200);
    running = false;
    await Promise.all(loads);
    expect([...outcomes.hbone.keys()]).toEqual([`server ${client.ipv4}\nhello`]);
    expect([...outcomes.plain.keys()]).toEqual([`server ${outsider.ipv4}\nhello`]);
    const handled = (lines: readonly string[]) => lines.filter((line) => line.includes("connection complete")).length;
    expect(handled(world.ztunnel.lines)).toBeGreaterThan(10);
    expect(handled(next.lines)).toBeGreaterThan(10);
  });
});

it("ENABLE_ORIG_SRC=false: the application sees the pod itself", async () => {
  await using other = await World.create({ ENABLE_ORIG_SRC: "false" });
  const pod = other.pod("server");
  using listener = await Listener.open(pod, 8080);
  for (const name of ["client", "outsider"]) {
    const near = await dial(other.pod(name), 4, pod.ipv4, 8080);
    const far = await listener.accept();
    expect(far.remote.address).toBe(pod.ipv4);
    near.finish();
    await far.end();
    far.finish();
    await near.end();
  }
});

async function exchange(from: TestPod): Promise<string> {
  const near = await dial(from, 4, server.ipv4, 8080);
  near.send("hello");
  near.finish();
  const answer = await near.end();
  if (near.error !== undefined) throw near.error;
  return answer;
}
