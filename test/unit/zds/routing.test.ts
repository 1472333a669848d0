// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from "vitest";
import { ZtunnelModel } from "../../support/zds-peer.ts";
import { FakeNetns, Harness, settled, told, workload } from "./harness.ts";

describe("add", () => {
  test("without a ztunnel it fails at once, with a remedy", async () => {
    await using h = new Harness();
    h.start();
    await expect(h.server.add(workload("u1"), new FakeNetns(11))).rejects.toMatchObject({
      code: "NO_ZTUNNEL",
      message: "no ztunnel takes ns/pod-u1: none is connected",
      remedy: expect.stringContaining("ztunnel pod of this node"),
    });
  });

  test("goes to the newest connection that finished its snapshot", async () => {
    await using h = new Harness();
    h.start();
    const old = h.ztunnel();
    const newer = h.ztunnel();
    await settled();
    expect(await h.add("u1", 11)).toBe("ok");
    expect(old.model.log).toEqual(["snapshot_sent"]);
    expect(newer.model.log).toEqual(["snapshot_sent", "add u1"]);
    expect(h.events.at(-1)).toBe("acked u1 by 2 in 4:11");
  });

  test("falls back to the next older one when the newest dies with it", async () => {
    await using h = new Harness();
    h.start();
    const old = h.ztunnel();
    await settled();
    const newer = await h.manual();
    const added = h.add("u1", 11);
    await settled();
    expect(newer.received.length).toBe(1);
    newer.close();
    expect(await added).toBe("ok");
    expect(old.model.log).toEqual(["snapshot_sent", "add u1"]);
  });

  test("… and when sending fails", async () => {
    await using h = new Harness();
    h.start();
    const old = h.ztunnel();
    await settled();
    const newer = await h.manual();
    newer.sendError = Object.assign(new Error("send: EPIPE"), { code: "EPIPE" });
    expect(await h.add("u1", 11)).toBe("ok");
    expect(old.model.log).toEqual(["snapshot_sent", "add u1"]);
    expect(newer.closedByAgent).toBe(true);
    expect(h.metrics.disconnects("send_error")).toBe(1);
  });

  test("… but not when it is refused", async () => {
    await using h = new Harness();
    h.start();
    const old = h.ztunnel();
    const model = new ZtunnelModel();
    model.failing.add("u1");
    h.ztunnel(model);
    await settled();
    await expect(h.server.add(workload("u1"), new FakeNetns(11))).rejects.toMatchObject({
      code: "ZTUNNEL_REFUSED",
      message: expect.stringContaining("ztunnel refused ns/pod-u1: failure to start proxy"),
    });
    expect(old.model.log).toEqual(["snapshot_sent"]);
    expect(h.metrics.messages("add", "refused")).toBe(1);
  });

  test("fails when every connection dies with it", async () => {
    await using h = new Harness();
    h.start();
    const peer = await h.manual();
    const added = h.add("u1", 11);
    peer.close(Object.assign(new Error("read: ECONNRESET"), { code: "ECONNRESET" }));
    expect(await added).toBe("NO_ZTUNNEL");
    expect(h.metrics.disconnects("read_error")).toBe(1);
  });

  test("is refused before sending when it could not be read, or its netns is closed", async () => {
    await using h = new Harness();
    h.start();
    const { model } = h.ztunnel();
    await settled();
    const closed = new FakeNetns(11);
    closed.close();
    expect(await told(h.server.add(workload("u1"), closed))).toBe("NETNS_CLOSED");
    const long = { ...workload("u1"), name: "n".repeat(1100) };
    expect(await told(h.server.add(long, new FakeNetns(11)))).toBe("ZDS_MESSAGE");
    expect(await told(h.server.del("u".repeat(2000)))).toBe("ZDS_MESSAGE");
    expect(model.log).toEqual(["snapshot_sent"]);
  });

  test("whose netns is closed while it is queued fails cleanly, the next goes on", async () => {
    await using h = new Harness();
    h.start();
    const peer = await h.manual();
    const first = h.add("u1", 11);
    const netns = new FakeNetns(12);
    const second = told(h.server.add(workload("u2"), netns));
    const third = h.add("u3", 13);
    netns.close();
    peer.ack();
    expect(await first).toBe("ok");
    expect(await second).toBe("NETNS_CLOSED");
    expect(peer.received.map(({ fd }) => fd)).toEqual([11, 13]);
    peer.ack();
    expect(await third).toBe("ok");
  });

  test("acks belong to the messages in order", async () => {
    await using h = new Harness();
    h.start();
    const peer = await h.manual();
    const answers = [h.add("u1", 11), h.add("u2", 12), told(h.server.del("u3")), h.add("u4", 14)];
    await settled();
    expect(peer.received.length).toBe(1);
    peer.ack();
    peer.ack("no");
    peer.ack();
    peer.ack("never");
    expect(await Promise.all(answers)).toEqual(["ok", "ZTUNNEL_REFUSED", "ok", "ZTUNNEL_REFUSED"]);
  });

  test("a newer add of the same pod overtakes the one that waits", async () => {
    await using h = new Harness();
    h.start();
    const peer = await h.manual();
    const other = h.add("u0", 10);
    const older = h.add("u1", 11);
    const newer = h.add("u1", 21);
    expect(await older).toBe("SUPERSEDED");
    peer.ack();
    peer.ack();
    expect(await Promise.all([other, newer])).toEqual(["ok", "ok"]);
    expect(peer.received.map(({ fd }) => fd)).toEqual([10, 21]);
  });

  test("a del overtakes an add: it never falls back to another connection afterwards", async () => {
    await using h = new Harness();
    h.start();
    const old = h.ztunnel();
    await settled();
    const newer = await h.manual();
    const added = h.add("u1", 11);
    const deleted = told(h.server.del("u1"));
    expect(await added).toBe("SUPERSEDED");
    newer.close();
    expect(await deleted).toBe("ok");
    await settled();
    expect(old.model.log).toEqual(["snapshot_sent", "del u1"]);
  });

  test("… nor counts as served when its ack comes before the del's", async () => {
    await using h = new Harness();
    h.start();
    const peer = await h.manual();
    void h.add("u1", 11);
    const deleted = told(h.server.del("u1"));
    peer.ack();
    peer.ack();
    expect(await deleted).toBe("ok");
    expect(h.server.connections()[0]?.acked).toBe(0);
  });

  test("an older connection that is still in its snapshot is not bothered", async () => {
    await using h = new Harness();
    h.start();
    const slow = h.binding.connect();
    slow.hello();
    const newer = h.ztunnel();
    await settled();
    expect(await h.add("u1", 11)).toBe("ok");
    expect(newer.model.proxies.has("u1")).toBe(true);
    slow.ack();
    await settled();
    expect(slow.hex()).toEqual(["1a00"]);
  });
});

describe("abort", () => {
  test("an aborted add that was queued is never sent", async () => {
    await using h = new Harness();
    h.start();
    const peer = await h.manual();
    const first = h.add("u1", 11);
    const abort = new AbortController();
    const second = h.add("u2", 12, abort.signal);
    abort.abort(new Error("deadline"));
    expect(await second).toBe("Error: deadline");
    peer.ack();
    expect(await first).toBe("ok");
    await settled();
    expect(peer.received.map(({ fd }) => fd)).toEqual([11]);
  });

  test("one in flight still gets its ack, which is credited to nothing else", async () => {
    await using h = new Harness();
    h.start();
    const peer = await h.manual();
    const abort = new AbortController();
    const first = h.add("u1", 11, abort.signal);
    const second = h.add("u2", 12);
    abort.abort(new Error("deadline"));
    expect(await first).toBe("Error: deadline");
    const before = h.events.length;
    peer.ack();
    await settled();
    expect(h.events.length).toBe(before);
    peer.ack("no");
    expect(await second).toBe("ZTUNNEL_REFUSED");
    expect(h.server.connections()[0]?.acked).toBe(1);
    // It runs there all the same, so a later del must be sent.
    const deleted = told(h.server.del("u1"));
    expect(peer.hex().at(-1)).toBe("120412027531");
    peer.ack();
    expect(await deleted).toBe("ok");
  });

  test("before the call and after the answer it changes nothing", async () => {
    await using h = new Harness();
    h.start();
    const { model } = h.ztunnel();
    await settled();
    expect(await h.add("u1", 11, AbortSignal.abort(new Error("early")))).toBe("Error: early");
    const abort = new AbortController();
    expect(await h.add("u2", 12, abort.signal)).toBe("ok");
    abort.abort();
    await settled();
    expect(model.log).toEqual(["snapshot_sent", "add u2"]);
  });
});

describe("del", () => {
  test("goes to every connection and waits for all of them", async () => {
    await using h = new Harness();
    h.start();
    const peers = [await h.manual(), await h.manual(), await h.manual()];
    let done = false;
    const deleted = told(h.server.del("u1")).then((answer) => {
      done = true;
      return answer;
    });
    expect(peers.map((peer) => peer.hex())).toEqual([["120412027531"], ["120412027531"], ["120412027531"]]);
    peers[2]?.ack();
    peers[0]?.ack();
    await settled();
    expect(done).toBe(false);
    // The one that never answers dies (istio: deadlock of PodDeleted and disconnect).
    peers[1]?.close();
    expect(await deleted).toBe("ok");
    expect(h.server.connections().map(({ id }) => id)).toEqual([1, 3]);
  });

  test("is done at once without connections, and waits no longer than the ack deadline", async () => {
    await using h = new Harness();
    h.start();
    expect(await told(h.server.del("u1"))).toBe("ok");
    const silent = await h.manual();
    const deleted = told(h.server.del("u2"));
    await h.clock.advance(5_001);
    expect(await deleted).toBe("ok");
    expect(silent.closedByAgent).toBe(true);
  });

  test("a refusal is logged, counted and told, after the others have answered", async () => {
    await using h = new Harness();
    h.start();
    const old = await h.manual();
    const newer = await h.manual();
    const deleted = h.server.del("u1");
    newer.ack("no such thing");
    old.ack();
    await expect(deleted).rejects.toMatchObject({
      code: "ZTUNNEL_REFUSED",
      message: "ztunnel refused to delete u1: connection 2: no such thing",
    });
    expect(h.metrics.messages("del", "refused")).toBe(1);
    expect(h.logger.lines.filter(({ level }) => level === "error").map(({ fields }) => fields.uid)).toEqual(["u1"]);
  });

  test("followed by an add keeps its place", async () => {
    await using h = new Harness();
    h.start();
    const { model } = h.ztunnel();
    await settled();
    await h.add("u1", 11);
    const answers = [told(h.server.del("u1")), h.add("u1", 21)];
    expect(await Promise.all(answers)).toEqual(["ok", "ok"]);
    expect(model.log.slice(1)).toEqual(["add u1", "del u1", "add u1"]);
    expect(model.proxies.get("u1")?.netns).toBe("4:21");
    expect(h.server.connections()[0]?.acked).toBe(1);
    expect(await told(h.server.del("u1"))).toBe("ok");
    expect(h.server.connections()[0]?.acked).toBe(0);
  });
});

describe("several connections", () => {
  test("leave in any order without loss (istio #54565)", async () => {
    await using h = new Harness();
    h.start();
    const peers = [h.ztunnel(), h.ztunnel(), h.ztunnel()];
    await settled();
    peers[1]?.peer.close();
    expect(await h.add("u1", 11)).toBe("ok");
    expect(peers[2]?.model.proxies.has("u1")).toBe(true);
    peers[0]?.peer.close();
    expect(h.server.connections().map(({ id }) => id)).toEqual([3]);
    expect(await h.add("u2", 12)).toBe("ok");
    const fourth = h.ztunnel();
    await settled();
    peers[2]?.peer.close();
    expect(await h.add("u3", 13)).toBe("ok");
    expect(fourth.model.proxies.has("u3")).toBe(true);
    fourth.peer.close();
    expect(await h.add("u4", 14)).toBe("NO_ZTUNNEL");
    expect(h.metrics.gauges.get("ztunnel_connected")).toBe(0);
  });

  test("when a new ztunnel dies beside an old one, the old one takes what only the new one served", async () => {
    await using h = new Harness();
    h.start();
    h.list("u1", 11);
    const old = h.ztunnel();
    const newer = h.ztunnel();
    await settled();
    expect(await h.add("u2", 12)).toBe("ok");
    expect(await h.add("u3", 13)).toBe("ok");
    expect(await told(h.server.del("u3"))).toBe("ok");
    expect(old.model.log).toEqual(["add u1", "snapshot_sent", "del u3"]);
    newer.peer.close();
    await settled();
    expect(old.model.log.slice(3)).toEqual(["add u2"]);
    expect(h.events.at(-1)).toBe("acked u2 by 1 in 4:12");
  });

  test("… but not what is being added with another netns at that moment", async () => {
    await using h = new Harness();
    h.start();
    const old = h.ztunnel();
    await settled();
    const newer = await h.manual();
    const first = h.add("u1", 11);
    newer.ack();
    expect(await first).toBe("ok");
    const second = h.add("u1", 21);
    newer.close();
    expect(await second).toBe("ok");
    await settled();
    expect(old.model.log).toEqual(["snapshot_sent", "add u1"]);
    expect(old.model.proxies.get("u1")?.netns).toBe("4:21");
  });

  test("one that we dropped has 5 s to come back before another takes its workloads", async () => {
    await using h = new Harness();
    h.start();
    const old = h.ztunnel();
    const model = new ZtunnelModel();
    const newer = h.ztunnel(model);
    await settled();
    expect(await h.add("u1", 11)).toBe("ok");
    h.list("u1", 11);
    newer.peer.send(Buffer.from("ffff", "hex"));
    h.ztunnel(model);
    await h.clock.advance(6_000);
    expect(old.model.log).toEqual(["snapshot_sent"]);
    expect(await h.add("u2", 12)).toBe("ok");
    const third = h.server.connections().at(-1);
    expect(third?.acked).toBe(2);
  });

  test("… and loses them to another when it does not", async () => {
    await using h = new Harness();
    h.start();
    const old = h.ztunnel();
    const newer = h.ztunnel();
    await settled();
    expect(await h.add("u1", 11)).toBe("ok");
    newer.peer.send(Buffer.from("ffff", "hex"));
    await h.clock.advance(4_000);
    expect(old.model.log).toEqual(["snapshot_sent"]);
    await h.clock.advance(1_000);
    expect(old.model.log).toEqual(["snapshot_sent", "add u1"]);
  });
});
