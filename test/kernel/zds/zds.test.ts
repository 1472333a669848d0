// SPDX-License-Identifier: Apache-2.0
// The ZDS server on real sockets, with real network namespaces and ztunnels in other processes.
import { chmodSync, readdirSync, readlinkSync, rmSync, statSync } from "node:fs";
import { Socket } from "node:net";
import { describe, expect, test } from "vitest";
import type { NetnsHandle } from "../../../src/core/ports/netns.ts";
import type { SnapshotEntry, Workload, ZtunnelPeer } from "../../../src/core/ports/ztunnel.ts";
import { native } from "../../../src/native/load.ts";
import { createNetns, type HeldNetns } from "../../../src/native/netns.ts";
import { hostPidOf } from "../../../src/sys/peer.ts";
import { ZdsServer } from "../../../src/zds/server.ts";
import { LogRecorder, MetricRecorder } from "../../support/recorder.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";
import { PROXY_PORT } from "../../support/zds-peer-port.ts";
import { ZdsProcess } from "../../support/zds-process.ts";
import { seeded } from "../../unit/zds/random.ts";

const workload = (uid: string): Workload => ({ uid, name: `pod-${uid}`, namespace: "ns", serviceAccount: "sa" });

class Agent implements AsyncDisposable {
  readonly #scratch = new ScratchDir();
  readonly path = this.#scratch.file("ztunnel.sock");
  readonly log = new LogRecorder();
  readonly metrics = new MetricRecorder();
  readonly pods = new Map<string, SnapshotEntry & { readonly netns: HeldNetns }>();
  readonly events: string[] = [];
  readonly met: (ZtunnelPeer & { readonly hostPid: number | undefined })[] = [];
  readonly server = new ZdsServer({ path: this.path, binding: native(), logger: this.log, metrics: this.metrics });
  readonly #waiting = new Set<() => void>();

  start(): void {
    this.server.listen();
    this.serve();
  }

  serve(): void {
    this.server.serve(() => [...this.pods.values()], {
      acked: (uid, connection) => this.#event(`acked ${uid} by ${connection}`),
      refused: (uid, connection, reason) => this.#event(`refused ${uid} by ${connection}: ${reason}`),
      met: (peer) => {
        this.met.push({ ...peer, hostPid: hostPidOf(peer.pidfd, "/proc") });
        this.#event(`met ${peer.connection}`);
      },
      parted: (connection) => this.#event(`parted ${connection}`),
      changed: () => this.#event("changed"),
    });
  }

  /** A pod of the node, with a netns of its own. */
  pod(uid: string): HeldNetns {
    const netns = createNetns();
    this.pods.set(uid, { workload: workload(uid), netns });
    return netns;
  }

  add(uid: string, netns: NetnsHandle): Promise<void> {
    return this.server.add(workload(uid), netns);
  }

  disconnects(reason: string): number {
    return this.metrics.counts.get(`ambient_cni_zds_disconnects_total${JSON.stringify({ reason })}`) ?? 0;
  }

  /** Waits for something that an event brings about. */
  async until(holds: () => boolean, what: string, ms = 10_000): Promise<void> {
    const deadline = performance.now() + ms;
    while (!holds()) {
      const left = deadline - performance.now();
      if (left <= 0) throw new Error(`${what}: not within ${ms} ms; events: ${this.events.join(", ")}`);
      await new Promise<void>((resolve) => {
        const done = () => {
          clearTimeout(timer);
          this.#waiting.delete(done);
          resolve();
        };
        const timer = setTimeout(done, Math.min(left, 50));
        this.#waiting.add(done);
      });
    }
  }

  ready(count: number): Promise<void> {
    return this.until(
      () => this.server.connections().filter(({ ready }) => ready).length === count,
      `${count} ready connections`,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.stop();
    for (const { netns } of this.pods.values()) netns.close();
    this.#scratch[Symbol.dispose]();
  }

  #event(event: string): void {
    this.events.push(event);
    for (const wake of [...this.#waiting]) wake();
  }
}

/** Who answers on the proxy's port inside a netns. */
async function whoAnswers(netns: NetnsHandle): Promise<string> {
  const fd = await native().tcpConnect(netns.fd, { family: 4, address: "127.0.0.1", port: PROXY_PORT, timeout: 5000 });
  const socket = new Socket({ fd });
  let text = "";
  for await (const chunk of socket) text += String(chunk);
  return text;
}

/** What the open fds of this process are, as /proc names it. */
function openFiles(): string[] {
  return readdirSync("/proc/self/fd").map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return "closed since it was listed";
    }
  });
}

/** Network namespaces that this process holds open. */
function heldNetns(): number {
  return openFiles().filter((target) => target.startsWith("net:[")).length;
}

test("it listens until its socket is removed or another's is in its place", async () => {
  await using agent = new Agent();
  expect(agent.server.listening).toBe(false);
  agent.start();
  expect(agent.server.listening).toBe(true);
  rmSync(agent.path);
  expect(agent.server.listening).toBe(false);
  const successor = new ZdsServer({ path: agent.path, binding: native(), logger: agent.log, metrics: agent.metrics });
  successor.listen();
  expect(agent.server.listening).toBe(false);
  expect(successor.listening).toBe(true);
  await successor.stop();
  expect(successor.listening).toBe(false);
});

describe("with a ztunnel in another process", () => {
  test("the netns of each pod arrives as itself: who answers inside it is that pod's proxy", async () => {
    await using agent = new Agent();
    agent.start();
    const first = agent.pod("u1");
    const second = agent.pod("u2");
    await using ztunnel = await ZdsProcess.start();
    await ztunnel.connect(agent.path);
    await agent.ready(1);
    expect(agent.server.connections()).toMatchObject([{ id: 1, pid: ztunnel.pid, uid: 0, ready: true, acked: 2 }]);
    const third = agent.pod("u3");
    await agent.add("u3", third);
    const report = await ztunnel.report();
    expect(report.log).toEqual(["add u1", "add u2", "snapshot_sent", "add u3"]);
    expect(report.proxies).toEqual({ u1: first.id, u2: second.id, u3: third.id });
    expect(await whoAnswers(first)).toBe(`u1 by ${ztunnel.pid}`);
    expect(await whoAnswers(second)).toBe(`u2 by ${ztunnel.pid}`);
    expect(await whoAnswers(third)).toBe(`u3 by ${ztunnel.pid}`);
    await agent.server.del("u2");
    await expect(whoAnswers(second)).rejects.toMatchObject({ code: "ECONNREFUSED" });
  });

  test("who it is is known before anything is sent to it, by a pidfd that is closed afterwards", async () => {
    await using agent = new Agent();
    agent.start();
    agent.pod("u1");
    await using ztunnel = await ZdsProcess.start();
    await ztunnel.connect(agent.path);
    await agent.ready(1);
    const [peer] = agent.met;
    expect(peer).toMatchObject({ connection: 1, pid: ztunnel.pid, hostPid: ztunnel.pid });
    expect(agent.events).toEqual(["met 1", "acked u1 by 1", "changed"]);
    await ztunnel.kill();
    await agent.until(() => agent.events.includes("parted 1"), "parted");
    expect(openFiles().filter((target) => target.includes("pidfd"))).toEqual([]);
  });

  test("a peer that comes before serve() waits unanswered", async () => {
    await using agent = new Agent();
    agent.server.listen();
    agent.pod("u1");
    await using ztunnel = await ZdsProcess.start();
    await ztunnel.connect(agent.path);
    await agent.until(() => agent.server.connections().length === 1, "accepted");
    await agent.server.del("gone");
    expect((await ztunnel.report()).log).toEqual([]);
    agent.serve();
    await agent.ready(1);
    expect((await ztunnel.report()).log).toEqual(["add u1", "snapshot_sent"]);
  });

  test("a killed ztunnel is noticed at once, also while it owes an ack", async () => {
    await using agent = new Agent();
    agent.start();
    await using ztunnel = await ZdsProcess.start();
    await ztunnel.connect(agent.path);
    await agent.ready(1);
    ztunnel.signal("SIGSTOP");
    const netns = agent.pod("u1");
    const added = agent.add("u1", netns);
    const deleted = agent.server.del("u2");
    const began = performance.now();
    ztunnel.signal("SIGKILL");
    await expect(added).rejects.toMatchObject({ code: "NO_ZTUNNEL" });
    await deleted;
    expect(performance.now() - began).toBeLessThan(2000);
    expect(agent.server.connections()).toEqual([]);
  });

  test("one that hangs is cut after 5 s, and the older one serves the pod", async () => {
    await using agent = new Agent();
    agent.start();
    await using old = await ZdsProcess.start();
    await using hung = await ZdsProcess.start();
    await old.connect(agent.path);
    await agent.ready(1);
    await hung.connect(agent.path);
    await agent.ready(2);
    hung.signal("SIGSTOP");
    const netns = agent.pod("u1");
    const began = performance.now();
    await agent.add("u1", netns);
    expect(performance.now() - began).toBeGreaterThan(4900);
    expect(await whoAnswers(netns)).toBe(`u1 by ${old.pid}`);
    expect(agent.disconnects("ack_timeout")).toBe(1);
    // Its late ack falls into a closed connection; it connects again and learns everything.
    hung.signal("SIGCONT");
    await agent.until(() => agent.server.connections().length === 1, "the hung one is gone");
    await hung.connect(agent.path);
    await agent.ready(2);
    expect((await hung.report()).exited).toBeUndefined();
    expect(Object.keys((await hung.report()).proxies)).toEqual(["u1"]);
  });

  test.each([
    ["garbage instead of a hello", false, "ffff", false, "hello_garbage"],
    ["another version", false, "0802", false, "hello_version"],
    ["an unsolicited ack", true, "0a00", false, "unsolicited"],
    ["a packet of 5 kB", true, "00".repeat(5000), false, "truncated"],
    ["a file descriptor", true, "0a00", true, "fds"],
  ])("%s costs the connection, and no fd of ours", async (_what, hello, hex, attach, reason) => {
    await using agent = new Agent();
    agent.start();
    await using ztunnel = await ZdsProcess.start();
    await ztunnel.ask({ do: "connect", path: agent.path, hello });
    await (hello ? agent.ready(1) : agent.until(() => agent.server.connections().length === 1, "accepted"));
    const before = heldNetns();
    await ztunnel.ask({ do: "send", hex, attach });
    await agent.until(() => agent.server.connections().length === 0, "dropped");
    expect(agent.disconnects(reason)).toBe(1);
    expect(heldNetns()).toBe(before);
    while ((await ztunnel.report()).connected);
    await ztunnel.connect(agent.path);
    await agent.ready(1);
  });

  test("only root is served: the kernel refuses others, and so do we where the mode lets them in", async () => {
    await using agent = new Agent();
    agent.start();
    chmodSync(new URL(".", `file://${agent.path}`), 0o755);
    expect((statSync(agent.path).mode & 0o777).toString(8)).toBe("755");
    await using stranger = await ZdsProcess.start({ uid: 65534 });
    await expect(stranger.connect(agent.path)).rejects.toThrow(/EACCES|[Pp]ermission denied/);
    chmodSync(agent.path, 0o777);
    // The hello may already meet a closed socket.
    await stranger.connect(agent.path).catch(() => undefined);
    await agent.until(() => agent.disconnects("not_root") === 1, "turned away");
    expect(agent.server.connections()).toEqual([]);
    const line = agent.log.lines.find(({ message }) => message === "a ZDS peer was turned away");
    expect(line?.fields.detail).toBe(`a peer with uid 65534 (pid ${stranger.pid})`);
  });

  test("a refused workload is added again until its proxy runs", async () => {
    await using agent = new Agent();
    agent.start();
    const netns = agent.pod("u1");
    await using ztunnel = await ZdsProcess.start();
    await ztunnel.ask({ do: "fail", uids: ["u1"] });
    await ztunnel.connect(agent.path);
    await agent.ready(1);
    expect(agent.events[1]).toMatch(/^refused u1 by 1: failure to start proxy/);
    expect((await ztunnel.report()).ready).toBe(false);
    await ztunnel.ask({ do: "fail", uids: [] });
    await agent.until(() => agent.events.includes("acked u1 by 1"), "acked after all");
    expect((await ztunnel.report()).ready).toBe(true);
    expect(await whoAnswers(netns)).toBe(`u1 by ${ztunnel.pid}`);
  });

  test("an agent that restarts takes the socket over; the proxies never stop", async () => {
    await using old = new Agent();
    old.start();
    const netns = old.pod("u1");
    await using ztunnel = await ZdsProcess.start();
    await ztunnel.connect(old.path);
    await old.ready(1);
    const successor = new ZdsServer({ path: old.path, binding: native(), logger: old.log, metrics: old.metrics });
    successor.listen();
    await old.server.stop();
    expect(await whoAnswers(netns)).toBe(`u1 by ${ztunnel.pid}`);
    // The predecessor's stop left the successor's socket alone.
    await ztunnel.connect(old.path);
    let acked = "";
    await new Promise<void>((resolve) => {
      successor.serve(() => [...old.pods.values()], {
        acked: (uid) => {
          acked = uid;
        },
        refused: () => {},
        met: () => {},
        parted: () => {},
        changed: () => resolve(),
      });
    });
    expect(acked).toBe("u1");
    expect((await ztunnel.report()).log).toEqual(["add u1", "snapshot_sent", "add u1", "snapshot_sent"]);
    expect(await whoAnswers(netns)).toBe(`u1 by ${ztunnel.pid}`);
    await successor.stop();
  });

  test("a rolling update under a stream of new pods: the new ztunnel knows every one before the old goes", async () => {
    await using agent = new Agent();
    agent.start();
    for (let i = 0; i < 40; i++) agent.pod(`old${i}`);
    await using old = await ZdsProcess.start();
    await using fresh = await ZdsProcess.start();
    await old.connect(agent.path);
    await agent.ready(1);
    let running = true;
    let added = 0;
    const stream = (async () => {
      for (; running && added < 400; added++) await agent.add(`new${added}`, agent.pod(`new${added}`));
    })();
    await agent.until(() => agent.events.filter((event) => event.startsWith("acked new")).length > 5, "stream");
    await fresh.connect(agent.path);
    await agent.ready(2);
    running = false;
    await stream;
    await agent.until(() => agent.server.connections().at(-1)?.acked === agent.pods.size, "the new one knows all");
    await old.kill();
    const report = await fresh.report();
    expect(Object.keys(report.proxies).sort()).toEqual([...agent.pods.keys()].sort());
    expect(report.exited).toBeUndefined();
    for (const { workload: pod, netns } of agent.pods.values()) {
      expect(await whoAnswers(netns)).toBe(`${pod.uid} by ${fresh.pid}`);
    }
  });

  test("killed again and again among adds and dels, the last ztunnel ends with exactly what is wanted", async () => {
    await using agent = new Agent();
    agent.start();
    const random = seeded(11);
    const before = heldNetns();
    for (let round = 0; round < 4; round++) {
      await using ztunnel = await ZdsProcess.start();
      await ztunnel.connect(agent.path);
      const work: Promise<unknown>[] = [];
      for (let step = 0; step < 30; step++) {
        const uid = `u${Math.floor(random() * 12)}`;
        const known = agent.pods.get(uid);
        if (known === undefined) work.push(agent.add(uid, agent.pod(uid)).catch(() => undefined));
        else if (random() < 0.5) {
          agent.pods.delete(uid);
          work.push(agent.server.del(uid).then(() => known.netns.close()));
        }
        if (step === 20 && round < 3) ztunnel.signal("SIGKILL");
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
      await Promise.all(work);
    }
    await using last = await ZdsProcess.start();
    await last.connect(agent.path);
    await agent.ready(1);
    const report = await last.report();
    expect(report.proxies).toEqual(Object.fromEntries([...agent.pods].map(([uid, { netns }]) => [uid, netns.id])));
    expect(report.exited).toBeUndefined();
    await last.kill();
    await agent.until(() => agent.server.connections().length === 0, "all gone");
    expect(heldNetns()).toBe(before + agent.pods.size);
  });

  test("a snapshot of 200 pods takes well under a second, each message within 1024 bytes", async () => {
    await using agent = new Agent();
    agent.start();
    for (let i = 0; i < 200; i++) agent.pod(`u${i}`);
    await using ztunnel = await ZdsProcess.start();
    const began = performance.now();
    await ztunnel.connect(agent.path);
    await agent.ready(1);
    const snapshot = performance.now() - began;
    await Promise.all([...agent.pods.values()].map(({ workload: pod, netns }) => agent.add(pod.uid, netns)));
    expect(agent.server.connections()[0]?.acked).toBe(200);
    expect(snapshot).toBeLessThan(1000);
    expect((await ztunnel.report()).largest).toBeLessThanOrEqual(1024);
  });
});
