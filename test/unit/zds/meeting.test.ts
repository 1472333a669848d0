// SPDX-License-Identifier: Apache-2.0
// The listener learns who a ztunnel is before that ztunnel is told anything.
import { expect, test } from "vitest";
import { Harness, settled } from "./harness.ts";

test("a ztunnel is met when it has said hello, with nothing sent yet, and its pidfd is closed after that", async () => {
  await using h = new Harness();
  h.start();
  h.list("u1", 11);
  const peer = h.binding.connect(7);
  peer.pidfd = 70;
  expect(h.peers).toEqual([]);
  peer.hello();
  expect(h.peers).toEqual(["met 1, pid 7, pidfd 70 open"]);
  expect(h.binding.closedFds).toEqual([70]);
  expect(peer.received).toHaveLength(1);
});

test("what the listener does comes first: were it to look, nothing would have been sent", async () => {
  await using h = new Harness();
  h.server.listen();
  const sent: number[] = [];
  const peer = h.binding.connect();
  h.server.serve(() => [], {
    met: () => sent.push(peer.received.length),
    parted: () => {},
    acked: () => {},
    refused: () => {},
    changed: () => {},
  });
  peer.hello();
  expect(sent).toEqual([0]);
  expect(peer.received).toHaveLength(1);
});

test("those that came before serve() are met then", async () => {
  await using h = new Harness();
  h.server.listen();
  const silent = h.binding.connect(1);
  h.binding.connect(2).hello();
  h.binding.connect(3).hello();
  expect(h.peers).toEqual([]);
  h.serve();
  expect(h.peers).toEqual(["met 2, pid 2, pidfd -1", "met 3, pid 3, pidfd -1"]);
  silent.hello();
  expect(h.peers.at(-1)).toBe("met 1, pid 1, pidfd -1");
});

test("who was met parts, once; who never said hello does not", async () => {
  await using h = new Harness();
  h.start();
  const { peer } = h.ztunnel();
  await settled();
  const silent = h.binding.connect();
  silent.close();
  peer.close();
  expect(h.peers).toEqual(["met 1, pid 0, pidfd -1", "parted 1"]);
  expect(h.events.at(-1)).toBe("changed");
});

test("an agent that stops leaves ztunnel as it is", async () => {
  await using h = new Harness();
  h.start();
  h.ztunnel();
  await settled();
  await h.server.stop();
  expect(h.peers).toEqual(["met 1, pid 0, pidfd -1"]);
});

test("a listener that fails is logged, the pidfd is closed and the snapshot is sent all the same", async () => {
  await using h = new Harness();
  h.server.listen();
  h.server.serve(() => [], {
    met: () => {
      throw new Error("no cgroup");
    },
    parted: () => {},
    acked: () => {},
    refused: () => {},
    changed: () => {},
  });
  const peer = h.binding.connect();
  peer.pidfd = 70;
  peer.hello();
  expect(h.binding.closedFds).toEqual([70]);
  expect(peer.hex()).toEqual(["1a00"]);
  expect(h.logger.lines.map(({ fields }) => fields.error)).toContain("no cgroup");
});
