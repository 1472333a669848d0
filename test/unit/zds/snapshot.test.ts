// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from "vitest";
import { ZtunnelModel } from "../../support/zds-peer.ts";
import { FakeNetns, Harness, settled, told, workload } from "./harness.ts";

describe("snapshot", () => {
  test("to the byte, lock-step: add with one fd, keep where the netns is unknown, then one snapshot_sent", async () => {
    await using h = new Harness();
    h.start();
    h.list("u1", 11);
    h.list("u2");
    const peer = h.binding.connect();
    await settled();
    expect(h.snapshots).toBe(0);
    peer.hello();
    await settled();
    const add = "0a16 0a027531 1210 0a06706f642d7531 12026e73 1a027361".replaceAll(" ", "");
    expect(peer.hex()).toEqual([add]);
    expect(peer.received[0]?.fd).toBe(11);
    peer.ack();
    expect(peer.hex()).toEqual([add, "2a040a027532"]);
    expect(peer.received[1]?.fd).toBeUndefined();
    peer.ack();
    expect(peer.hex()).toEqual([add, "2a040a027532", "1a00"]);
    expect(peer.received[2]?.fd).toBeUndefined();
    expect(h.server.connections()).toMatchObject([{ id: 1, pid: 0, ready: false, acked: 1 }]);
    peer.ack();
    await settled();
    expect(peer.received.length).toBe(3);
    expect(h.server.connections()).toMatchObject([{ id: 1, pid: 0, ready: true, acked: 1 }]);
    // An acked `keep` says nothing about listeners.
    expect(h.events).toEqual(["acked u1 by 1 in 4:11", "changed"]);
  });

  test("a peer that is there before serve() gets nothing until then, however long that takes", async () => {
    await using h = new Harness();
    h.server.listen();
    const { peer, model } = h.ztunnel();
    await h.clock.advance(59_000);
    h.binding.connect();
    await h.clock.advance(1_000);
    expect(peer.received).toEqual([]);
    expect(peer.closedByAgent).toBe(false);
    // An agent that cleans up before it serves must not wait for that peer.
    expect(await told(h.server.del("old"))).toBe("ok");
    expect(await h.add("u1", 11)).toBe("NO_ZTUNNEL");
    h.list("u1", 11);
    h.serve();
    await settled();
    expect(model.log).toEqual(["add u1", "snapshot_sent"]);
    // The other one has not said hello.
    expect(h.snapshots).toBe(1);
  });

  test("an empty pod list is a snapshot too, and it is sent once", async () => {
    await using h = new Harness();
    h.start();
    const { model } = h.ztunnel();
    await settled();
    expect(model.log).toEqual(["snapshot_sent"]);
    expect(await h.add("u1", 11)).toBe("ok");
    expect(model.log).toEqual(["snapshot_sent", "add u1"]);
    expect(model.exited).toBeUndefined();
  });

  test("a netns handle that was closed meanwhile becomes a keep, so that no running proxy is cut", async () => {
    await using h = new Harness();
    h.start();
    const model = new ZtunnelModel();
    h.list("u1", 11);
    const first = h.ztunnel(model);
    await settled();
    first.peer.close();
    const netns = h.list("u1", 11);
    netns?.close();
    h.ztunnel(model);
    await settled();
    expect(model.log).toEqual(["add u1", "snapshot_sent", "keep u1", "snapshot_sent"]);
    expect(model.killed).toEqual([]);
  });

  test("an entry too long for ztunnel is refused, the others and the connection go on", async () => {
    await using h = new Harness();
    h.start();
    h.pods.set("long", { workload: { ...workload("long"), name: "n".repeat(1100) }, netns: new FakeNetns(10) });
    h.list("u1", 11);
    const { model } = h.ztunnel();
    await settled();
    expect(model.log).toEqual(["add u1", "snapshot_sent"]);
    expect(h.events[0]).toMatch(/^refused long by 1: .* takes 11\d\d bytes, ztunnel reads at most 1024$/);
    expect(h.metrics.messages("add", "unsent")).toBe(1);
  });

  test("after a reconnect everything is said again, running proxies stay", async () => {
    await using h = new Harness();
    h.start();
    h.list("u1", 11);
    h.list("u2", 12);
    const model = new ZtunnelModel();
    const first = h.ztunnel(model);
    await settled();
    first.peer.close();
    h.pods.delete("u2");
    h.ztunnel(model);
    await settled();
    expect(model.log).toEqual(["add u1", "add u2", "snapshot_sent", "add u1", "snapshot_sent"]);
    expect(model.killed).toEqual(["u2"]);
  });

  test("a peer that dies in every snapshot is answered ever later, until one succeeds", async () => {
    await using h = new Harness();
    h.start();
    h.list("u1", 11);
    const delays: number[] = [];
    for (let round = 0; round < 9; round++) {
      const peer = h.binding.connect();
      peer.hello();
      const start = h.clock.now();
      while (peer.received.length === 0) await h.clock.advance(50);
      delays.push(h.clock.now() - start);
      peer.close();
    }
    expect(delays).toEqual([0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    const { model } = h.ztunnel();
    await h.clock.advance(5000);
    expect(model.ready).toBe(true);
    const next = h.ztunnel();
    await settled();
    expect(next.model.ready).toBe(true);
  });

  test("a pod list that can't be read costs the connection, not the agent", async () => {
    await using h = new Harness();
    h.server.listen();
    let broken = true;
    h.server.serve(
      () => {
        if (broken) throw new Error("no list");
        return [];
      },
      { met: () => {}, parted: () => {}, acked: () => {}, refused: () => {}, changed: () => {} },
    );
    const { peer } = h.ztunnel();
    expect(peer.closedByAgent).toBe(true);
    expect(h.metrics.disconnects("snapshot_failed")).toBe(1);
    broken = false;
    const { model } = h.ztunnel();
    await h.clock.advance(1000);
    expect(model.ready).toBe(true);
  });

  test("a listener that throws does not stop the protocol", async () => {
    await using h = new Harness();
    h.server.listen();
    const fail = () => {
      throw new Error("listener");
    };
    h.server.serve(() => [{ workload: workload("u1"), netns: new FakeNetns(11) }], {
      met: fail,
      parted: fail,
      acked: fail,
      refused: fail,
      changed: fail,
    });
    const { model } = h.ztunnel();
    await settled();
    expect(model.ready).toBe(true);
  });
});

describe("changes while a snapshot is being sent", () => {
  test("a del takes the uid out of the rest, and is sent after snapshot_sent", async () => {
    await using h = new Harness();
    h.start();
    h.list("u1", 11);
    h.list("u2", 12);
    h.list("u3", 13);
    const peer = h.binding.connect();
    const model = new ZtunnelModel();
    peer.run(model, (fd) => `4:${fd}`);
    peer.hello();
    // u1 is in flight, u2 and u3 are not sent yet.
    const first = told(h.server.del("u1"));
    const second = told(h.server.del("u2"));
    expect(await first).toBe("ok");
    expect(await second).toBe("ok");
    expect(model.log).toEqual(["add u1", "add u3", "snapshot_sent", "del u1", "del u2"]);
    expect([...model.proxies.keys()]).toEqual(["u3"]);
    expect(h.events).toEqual(["acked u3 by 1 in 4:13", "changed"]);
  });

  test("a del of a proxy that runs from before ends it, though the caller still lists it", async () => {
    await using h = new Harness();
    h.start();
    h.list("u1", 11);
    const model = new ZtunnelModel();
    const first = h.ztunnel(model);
    await settled();
    first.peer.close();
    const deleted = told(h.server.del("u1"));
    h.ztunnel(model);
    expect(await deleted).toBe("ok");
    await settled();
    expect(model.log.slice(2)).toEqual(["snapshot_sent"]);
    expect(model.killed).toEqual(["u1"]);
    // Wanted again: the next add lifts it.
    expect(await h.add("u1", 11)).toBe("ok");
    h.ztunnel();
    await settled();
    expect(h.events.at(-2)).toBe("acked u1 by 3 in 4:11");
  });

  test("without another connection an add waits for the end of the snapshot", async () => {
    await using h = new Harness();
    h.start();
    h.list("u1", 11);
    const { model } = h.ztunnel();
    const added = h.add("u2", 12);
    await settled();
    expect(await added).toBe("ok");
    expect(model.log).toEqual(["add u1", "snapshot_sent", "add u2"]);
  });

  test("an add served by the older connection also reaches the newer one, after its snapshot", async () => {
    await using h = new Harness();
    h.start();
    h.list("u1", 11);
    const old = h.ztunnel();
    await settled();
    const newer = h.binding.connect();
    newer.hello();
    expect(newer.received.length).toBe(1);
    expect(await h.add("u2", 12)).toBe("ok");
    expect(old.model.log).toEqual(["add u1", "snapshot_sent", "add u2"]);
    newer.ack();
    newer.ack();
    await settled();
    expect(newer.hex().slice(1)).toEqual(["1a00", expect.stringContaining(Buffer.from("pod-u2").toString("hex"))]);
    expect(newer.received.at(-1)?.fd).toBe(12);
    newer.ack();
    expect(h.events).toContain("acked u2 by 2 in 4:12");
  });

  test("… and a newer netns replaces the one that the snapshot would have sent", async () => {
    await using h = new Harness();
    h.start();
    const old = h.ztunnel();
    await settled();
    h.list("u1", 11);
    h.list("u2", 12);
    const { model } = h.ztunnel();
    // u1 is in flight with the old netns, u2 still to come.
    expect(await Promise.all([h.add("u1", 21), h.add("u2", 22)])).toEqual(["ok", "ok"]);
    await settled();
    expect(model.log).toEqual(["add u1", "add u2", "snapshot_sent", "add u1"]);
    expect(model.proxies.get("u1")?.netns).toBe("4:21");
    expect(model.proxies.get("u2")?.netns).toBe("4:22");
    expect(old.model.proxies.get("u1")?.netns).toBe("4:21");
  });

  test("… and an add that reaches the newer one by itself takes the place of what it was to learn", async () => {
    await using h = new Harness();
    h.start();
    const old = h.ztunnel();
    await settled();
    const newer = h.binding.connect();
    newer.hello();
    expect(await h.add("u1", 11)).toBe("ok");
    old.peer.close();
    const again = h.add("u1", 21);
    newer.ack();
    await settled();
    newer.ack();
    expect(await again).toBe("ok");
    await settled();
    expect(newer.received.map(({ fd }) => fd)).toEqual([undefined, 21]);
  });

  test("… but nothing twice: what its snapshot told it already is not repeated", async () => {
    await using h = new Harness();
    h.start();
    h.ztunnel();
    await settled();
    h.list("u1", 11);
    const newer = h.binding.connect();
    newer.hello();
    newer.ack();
    expect(await h.add("u1", 11)).toBe("ok");
    newer.ack();
    await settled();
    expect(newer.received.length).toBe(2);
  });

  test("… unless it was deleted or aborted before its turn", async () => {
    await using h = new Harness();
    h.start();
    h.ztunnel();
    await settled();
    const newer = h.binding.connect();
    newer.hello();
    expect(await h.add("u1", 11)).toBe("ok");
    expect(newer.hex()).toEqual(["1a00"]);
    const deleted = told(h.server.del("u1"));
    const abort = new AbortController();
    const aborted = h.add("u2", 12, abort.signal);
    abort.abort(new Error("gave up"));
    expect(await aborted).toBe("Error: gave up");
    newer.ack();
    await settled();
    expect(newer.hex()).toEqual(["1a00", "120412027531"]);
    newer.ack();
    expect(await deleted).toBe("ok");
    await settled();
    expect(newer.received.length).toBe(2);
  });

  test("an add that is under way while a snapshot is cut is in neither twice nor missing", async () => {
    await using h = new Harness();
    h.start();
    const old = await h.manual();
    const listed = h.add("u1", 21);
    await settled();
    const unlisted = h.add("u2", 22);
    h.list("u1", 11);
    const { model } = h.ztunnel();
    await settled();
    expect(model.log).toEqual(["add u1", "snapshot_sent", "add u2"]);
    expect(model.proxies.get("u1")?.netns).toBe("4:21");
    old.ack();
    await settled();
    old.ack();
    expect(await Promise.all([listed, unlisted])).toEqual(["ok", "ok"]);
  });
});

describe("refused adds of a snapshot", () => {
  test("are told once, added again every 5 s, and told when they succeed", async () => {
    await using h = new Harness();
    h.start();
    h.list("u1", 11);
    h.list("u2", 12);
    const model = new ZtunnelModel();
    model.failing.add("u1");
    h.ztunnel(model);
    await settled();
    expect(h.events.slice(0, 3)).toEqual([
      expect.stringMatching(/^refused u1 by 1: failure to start proxy/),
      "acked u2 by 1 in 4:12",
      "changed",
    ]);
    expect(model.ready).toBe(false);
    await h.clock.advance(12_000);
    expect(model.log.slice(3)).toEqual(["add u1", "add u1"]);
    expect(h.events.length).toBe(3);
    model.failing.clear();
    model.retry();
    await h.clock.advance(5_000);
    expect(h.events.slice(3)).toEqual(["acked u1 by 1 in 4:11"]);
    expect(model.ready).toBe(true);
    await h.clock.advance(60_000);
    expect(model.log.length).toBe(6);
    expect(h.clock.pending).toBe(0);
  });

  test("end with a del: ztunnel becomes ready (istio #56738)", async () => {
    await using h = new Harness();
    h.start();
    h.list("u1", 11);
    const model = new ZtunnelModel();
    model.failing.add("u1");
    h.ztunnel(model);
    await settled();
    expect(model.ready).toBe(false);
    h.pods.delete("u1");
    expect(await told(h.server.del("u1"))).toBe("ok");
    expect(model.ready).toBe(true);
    await h.clock.advance(60_000);
    expect(model.log).toEqual(["add u1", "snapshot_sent", "del u1"]);
  });

  test("never begin for a workload whose del waits behind the refused add", async () => {
    await using h = new Harness();
    h.start();
    h.list("u1", 11);
    const peer = h.binding.connect();
    peer.hello();
    const deleted = told(h.server.del("u1"));
    peer.ack("failure to start proxy");
    peer.ack();
    peer.ack();
    expect(await deleted).toBe("ok");
    expect(h.events).toEqual(["changed"]);
    await h.clock.advance(30_000);
    expect(peer.received.length).toBe(3);
  });

  test("end with the connection", async () => {
    await using h = new Harness();
    h.start();
    h.list("u1", 11);
    const model = new ZtunnelModel();
    model.failing.add("u1");
    const { peer } = h.ztunnel(model);
    await settled();
    expect(h.clock.pending).toBe(1);
    peer.close();
    expect(h.clock.pending).toBe(0);
  });

  test("give way to what somebody waits for", async () => {
    await using h = new Harness();
    h.start();
    h.list("u1", 11);
    h.list("u2", 12);
    const peer = h.binding.connect();
    peer.hello();
    peer.ack("no");
    peer.ack("no");
    peer.ack();
    await h.clock.advance(5_000);
    const added = h.add("u3", 13);
    peer.ack();
    peer.ack();
    peer.ack();
    expect(await added).toBe("ok");
    expect(peer.received.slice(3).map(({ fd }) => fd)).toEqual([11, 13, 12]);
  });

  test("end when the netns is closed: a reused fd number is never sent", async () => {
    await using h = new Harness();
    h.start();
    const netns = h.list("u1", 11);
    const model = new ZtunnelModel();
    model.failing.add("u1");
    h.ztunnel(model);
    await settled();
    netns?.close();
    await h.clock.advance(30_000);
    expect(model.log).toEqual(["add u1", "snapshot_sent"]);
    expect(h.clock.pending).toBe(0);
  });

  test("are left to the caller once it asks for itself", async () => {
    await using h = new Harness();
    h.start();
    h.list("u1", 11);
    const model = new ZtunnelModel();
    model.failing.add("u1");
    h.ztunnel(model);
    await settled();
    expect(await h.add("u1", 21)).toBe("ZTUNNEL_REFUSED");
    await h.clock.advance(30_000);
    expect(model.log).toEqual(["add u1", "snapshot_sent", "add u1"]);
    expect(model.pending.get("u1")?.netns).toBe("4:21");
  });
});
