// SPDX-License-Identifier: Apache-2.0
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { encodeHello } from "../../../src/zds/peer-codec.ts";
import { ZdsServer } from "../../../src/zds/server.ts";
import { FakeNetns, Harness, settled, told, workload } from "./harness.ts";
import { seeded } from "./random.ts";

describe("a peer that misbehaves loses its connection, with a reason", () => {
  const garbage = Buffer.from("ffffff", "hex");

  test.each<[string, string, (peer: { send: (message: Buffer, fds?: number[], truncated?: boolean) => void }) => void]>(
    [
      ["hello_garbage", "a hello that is no protobuf", (peer) => peer.send(garbage)],
      ["hello_version", "a hello of version 2", (peer) => peer.send(encodeHello(2))],
      ["hello_version", "a hello of no version", (peer) => peer.send(Buffer.from("1200", "hex"))],
      ["fds", "a hello with file descriptors", (peer) => peer.send(encodeHello(), [901, 902])],
      ["truncated", "a hello that is too long", (peer) => peer.send(Buffer.alloc(1024), [], true)],
    ],
  )("%s: %s", async (reason, _what, act) => {
    await using h = new Harness();
    h.start();
    const peer = h.binding.connect(77);
    act(peer);
    expect(peer.closedByAgent).toBe(true);
    expect(h.metrics.disconnects(reason)).toBe(1);
    expect(h.server.connections()).toEqual([]);
    const line = h.logger.lines.find(({ fields }) => fields.reason === reason);
    expect(line?.level).toBe("warn");
    expect(line?.fields.pid).toBe(77);
    expect(h.snapshots).toBe(0);
    expect(h.binding.closedFds).toEqual(reason === "fds" ? [901, 902] : []);
    // A late packet and the end are ignored, its fds closed.
    peer.send(Buffer.from("0a00", "hex"), [903]);
    peer.close();
    expect(h.binding.closedFds.includes(903)).toBe(true);
    expect(h.metrics.disconnects(reason)).toBe(1);
  });

  test.each<[string, string, Buffer, number[], boolean]>([
    ["unsolicited", "a second hello", encodeHello(), [], false],
    ["unsolicited", "an ack too many", Buffer.from("0a00", "hex"), [], false],
    ["truncated", "an oversized packet", Buffer.alloc(1024), [], true],
    ["fds", "file descriptors", Buffer.from("0a00", "hex"), [904], false],
  ])("%s: %s while nothing is asked", async (reason, _what, message, fds, truncated) => {
    await using h = new Harness();
    h.start();
    const peer = await h.manual();
    peer.send(message, fds, truncated);
    expect(peer.closedByAgent).toBe(true);
    expect(h.metrics.disconnects(reason)).toBe(1);
    expect(h.binding.closedFds).toEqual(fds);
  });

  test.each<[string, Buffer]>([
    ["no protobuf", garbage],
    ["a response of an unknown arm", Buffer.from("1200", "hex")],
    ["an error text that is not UTF-8", Buffer.from("0a030a01ff", "hex")],
  ])("garbage: %s in place of an ack", async (_what, message) => {
    await using h = new Harness();
    h.start();
    const peer = await h.manual();
    const added = h.add("u1", 11);
    peer.send(message);
    expect(await added).toBe("NO_ZTUNNEL");
    expect(h.metrics.disconnects("garbage")).toBe(1);
  });

  test("no hello within 5 s", async () => {
    await using h = new Harness();
    h.start();
    const peer = h.binding.connect();
    await h.clock.advance(4_999);
    expect(peer.closedByAgent).toBe(false);
    await h.clock.advance(2);
    expect(peer.closedByAgent).toBe(true);
    expect(h.metrics.disconnects("hello_timeout")).toBe(1);
    expect(h.metrics.gauges.get("ztunnel_connected")).toBe(0);
  });

  test("no ack within 5 s: the late one is credited to nothing", async () => {
    await using h = new Harness();
    h.start();
    const peer = await h.manual();
    const answers = [h.add("u1", 11), h.add("u2", 12)];
    await h.clock.advance(5_001);
    expect(peer.closedByAgent).toBe(true);
    peer.ack();
    expect(await Promise.all(answers)).toEqual(["ZTUNNEL_TIMEOUT", "NO_ZTUNNEL"]);
    expect(h.metrics.disconnects("ack_timeout")).toBe(1);
    expect(h.metrics.messages("add", "timeout")).toBe(1);
    expect(h.metrics.messages("add", "acked")).toBe(0);
  });

  test("an ack that lay in the socket while our own loop was blocked still counts", async () => {
    await using h = new Harness();
    h.start();
    const peer = await h.manual();
    const added = h.add("u1", 11);
    await h.clock.advance(5_000);
    peer.ack();
    await h.clock.advance(10);
    expect(await added).toBe("ok");
    expect(peer.closedByAgent).toBe(false);
  });

  test("a refused snapshot_sent", async () => {
    await using h = new Harness();
    h.start();
    const peer = h.binding.connect();
    peer.hello();
    peer.ack("no");
    expect(peer.closedByAgent).toBe(true);
    expect(h.metrics.disconnects("snapshot_refused")).toBe(1);
    expect(h.server.connections()).toEqual([]);
  });

  test("a peer that is not root is turned away unread, its fds are closed", async () => {
    await using h = new Harness();
    h.start();
    const peer = h.binding.connect(4711, 1000);
    expect(peer.closedByAgent).toBe(true);
    peer.send(encodeHello(), [905]);
    expect(h.binding.closedFds).toEqual([905]);
    expect(h.metrics.disconnects("not_root")).toBe(1);
    expect(h.logger.lines.at(-1)?.fields.detail).toBe("a peer with uid 1000 (pid 4711)");
    await h.clock.advance(61_000);
    expect(h.server.trouble()).toEqual({
      reason: "not_root",
      detail: "a peer with uid 1000 (pid 4711)",
      secondsAgo: 61,
    });
  });

  test("who is connected since when, and that nothing went wrong", async () => {
    await using h = new Harness();
    h.start();
    const peer = h.binding.connect(77);
    expect(h.server.connections()).toMatchObject([{ pid: 77, uid: 0, protocol: 0, seconds: 0 }]);
    peer.hello();
    await h.clock.advance(3_500);
    expect(h.server.connections()).toMatchObject([{ pid: 77, uid: 0, protocol: 1, seconds: 3 }]);
    peer.close();
    // Its end alone is no trouble.
    expect(h.server.trouble()).toBeUndefined();
  });

  test("at most 16 connections at once", async () => {
    await using h = new Harness();
    h.start();
    const peers = Array.from({ length: 17 }, () => h.binding.connect());
    expect(peers.map((peer) => peer.closedByAgent).indexOf(true)).toBe(16);
    expect(h.metrics.disconnects("too_many")).toBe(1);
    peers[3]?.close();
    const { model } = h.ztunnel();
    await settled();
    expect(model.ready).toBe(true);
  });

  test("whatever 300 seeded peers do, a good one is served beside them", async () => {
    await using h = new Harness();
    h.start();
    h.list("u1", 11);
    const random = seeded(7);
    const good = h.ztunnel();
    await settled();
    for (let round = 0; round < 300; round++) {
      const peer = h.binding.connect();
      for (let step = 0; step < 8; step++) {
        const choice = Math.floor(random() * 7);
        if (choice === 0) peer.hello();
        else if (choice === 1) peer.ack();
        else if (choice === 2) peer.ack("x".repeat(Math.floor(random() * 1000)));
        else if (choice === 3) peer.send(Buffer.from([random() * 256, random() * 256, random() * 256]));
        else if (choice === 4) peer.send(Buffer.from("0a00", "hex"), [1000 + round], random() < 0.5);
        else if (choice === 5) void h.add(`r${round}`, 2000 + round);
        else await h.clock.advance(Math.floor(random() * 2000));
      }
      peer.close();
    }
    await h.clock.advance(30_000);
    expect(good.model.exited).toBeUndefined();
    expect(await h.add("last", 4000)).toBe("ok");
    expect(good.model.proxies.has("last")).toBe(true);
    expect(h.server.connections().length).toBe(1);
  });
});

describe("socket and life", () => {
  test("binds the path it was given, readable as upstream's", async () => {
    await using h = new Harness();
    h.start();
    expect([h.binding.path, h.binding.mode.toString(8)]).toEqual([h.path, "755"]);
    expect(() => h.server.listen()).toThrow("listens only once");
    expect(() => h.serve()).toThrow("serves only once");
  });

  test("bad paths are named", async () => {
    await using h = new Harness();
    const server = (path: string) => new ZdsServer({ path, binding: h.binding, logger: h.logger, metrics: h.metrics });
    const long = join(h.directory, "x".repeat(100));
    expect(() => server(long).listen()).toThrow(`takes ${Buffer.byteLength(long)} bytes, the kernel allows 107`);
    expect(() => server(join(h.directory, "no", "z.sock")).listen()).toThrow(
      /directory of the ZDS socket can't be used: ENOENT/,
    );
    expect(() => server("").listen()).toThrow("is no path");
    writeFileSync(join(h.directory, "file"), "precious");
    expect(() => server(join(h.directory, "file")).listen()).toThrow("exists and is no socket; it is left alone");
    expect(readFileSync(join(h.directory, "file"), "utf8")).toBe("precious");
    expect(() => server(join(h.directory, "file", "z.sock")).listen()).toThrow("is no directory");
    mkdirSync(join(h.directory, "dir"));
    expect(() => server(join(h.directory, "dir")).listen()).toThrow("exists and is no socket");
    h.binding.listenError = new Error("EACCES: bind");
    expect(() => h.server.listen()).toThrow(`the ZDS socket ${h.path} can't be bound: EACCES: bind`);
  });

  test("a predecessor's socket is removed, a successor's is not", async () => {
    await using h = new Harness();
    const stale = createServer();
    await new Promise<void>((resolve) => stale.listen(h.path, resolve));
    h.server.listen();
    expect(existsSync(h.path)).toBe(false);
    await new Promise((resolve) => stale.close(resolve));

    // The fake binds nothing, so these stand for our socket and for a successor's at the same path.
    const other = new Harness();
    await using _ = other;
    const own = createServer();
    const listen = other.binding.seqpacketListen.bind(other.binding);
    other.binding.seqpacketListen = (...args) => {
      own.listen(other.path);
      return listen(...args);
    };
    other.start();
    expect(existsSync(other.path)).toBe(true);
    await other.server.stop();
    expect(existsSync(other.path)).toBe(false);
    await new Promise((resolve) => own.close(resolve));
  });

  test("stop closes without a word and ends what waits", async () => {
    await using h = new Harness();
    h.start();
    const peer = await h.manual();
    const waiting = [h.add("u1", 11), h.add("u2", 12), told(h.server.del("u3"))];
    const stopping = h.server.add(workload("u5"), new FakeNetns(15));
    stopping.catch(() => undefined);
    const sent = peer.received.length;
    await h.server.stop();
    expect(await Promise.all(waiting)).toEqual(["NO_ZTUNNEL", "NO_ZTUNNEL", "ok"]);
    await expect(stopping).rejects.toThrow("no ztunnel takes ns/pod-u5: the agent is stopping");
    expect(peer.closedByAgent).toBe(true);
    expect(peer.received.length).toBe(sent);
    expect(h.binding.listening).toBe(false);
    expect(h.clock.pending).toBe(0);
    await h.server.stop();
    expect(await told(h.server.add(workload("u4"), new FakeNetns(14)))).toBe("NO_ZTUNNEL");
    const late = h.binding.connect();
    expect(late.closedByAgent).toBe(true);
  });

  test("a listener may call back into the server", async () => {
    await using h = new Harness();
    h.server.listen();
    const answers: Promise<string>[] = [];
    let called = 0;
    h.server.serve(() => [{ workload: workload("u1"), netns: new FakeNetns(11) }], {
      acked: (uid) => {
        if (uid === "u1" && called++ === 0) answers.push(told(h.server.del("u1")), h.add("u2", 12));
      },
      refused: () => {},
      met: () => {},
      parted: () => {},
      changed: () => {
        answers.push(h.add(`c${answers.length}`, 50));
      },
    });
    const { peer, model } = h.ztunnel();
    await settled();
    await settled();
    expect(model.log).toEqual(["add u1", "snapshot_sent", "del u1", "add u2", "add c2"]);
    peer.close();
    expect(await Promise.all(answers)).toEqual(["ok", "ok", "ok", "NO_ZTUNNEL"]);
  });

  test("gauge and ack times are measured", async () => {
    await using h = new Harness();
    h.start();
    expect(h.metrics.gauges.get("ztunnel_connected")).toBe(0);
    const peer = await h.manual();
    expect(h.metrics.gauges.get("ztunnel_connected")).toBe(1);
    const added = h.add("u1", 11);
    await h.clock.advance(250);
    peer.ack();
    await added;
    expect(h.metrics.observed.at(-1)).toEqual({
      name: "ambient_cni_zds_ack_seconds",
      value: 0.25,
      labels: { type: "add" },
    });
    expect(h.metrics.messages("add", "acked")).toBe(1);
    expect(h.metrics.messages("snapshot_sent", "acked")).toBe(1);
  });
});
