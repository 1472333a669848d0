// SPDX-License-Identifier: Apache-2.0
import { readFileSync, statSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { unacceptedAt } from "../../../src/dataplane/unaccepted.ts";
import { OwnedFd } from "../../../src/native/fd.ts";
import { native } from "../../../src/native/load.ts";
import { guardFds } from "../../support/fds.ts";
import { inNetns, NetnsLab } from "../../support/netns-lab.ts";

guardFds();

let lab: NetnsLab;
beforeEach(() => {
  lab = NetnsLab.create();
});
afterEach(() => {
  lab.close();
});

test("a connection is listed with both ends, inode and mark, as ss lists it", async () => {
  using _listener = OwnedFd.adopt(
    native().tcpListen(lab.pod.netns.fd, { family: 4, mark: 0x539, bind: { address: lab.pod.ipv4, port: 15001 } }),
    "listener",
  );
  using client = OwnedFd.adopt(
    await native().tcpConnect(lab.client.netns.fd, {
      family: 4,
      address: lab.pod.ipv4,
      port: 15001,
      mark: 0x42,
      timeout: 1000,
    }),
    "client",
  );
  const local = native().localEndpoint(client.fd);
  expect(native().sockets(lab.client.netns.fd, { protocol: "tcp" })).toEqual([
    expect.objectContaining({
      family: 4,
      protocol: "tcp",
      state: 1,
      src: lab.client.ipv4,
      srcPort: local.port,
      dst: lab.pod.ipv4,
      dstPort: 15001,
      uid: 0,
      mark: 0x42,
      inode: statSync(`/proc/self/fd/${client.fd}`).ino,
    }),
  ]);
  const listening = native().sockets(lab.pod.netns.fd, { protocol: "tcp", states: [10] });
  expect(listening).toEqual([
    expect.objectContaining({ src: lab.pod.ipv4, srcPort: 15001, dst: "0.0.0.0", dstPort: 0, mark: 0x539 }),
  ]);
  expect(await inNetns(lab.pod.netns, "ss", "-ltnHe")).toContain(`ino:${listening[0]?.inode}`);
});

test("connections that nobody accepts are a listener's queue, also when their clients have gone", async () => {
  const bind = { address: lab.pod.ipv4, port: 15001 };
  using _ztunnel = OwnedFd.adopt(native().tcpListen(lab.pod.netns.fd, { family: 4, mark: 0x539, bind }), "listener");
  const other = { family: 4, bind: { address: lab.pod.ipv4, port: 8080 } } as const;
  using _application = OwnedFd.adopt(native().tcpListen(lab.pod.netns.fd, other), "listener");
  const connect = async (port: number) => {
    const to = { family: 4, address: lab.pod.ipv4, port, timeout: 1000 } as const;
    return OwnedFd.adopt(await native().tcpConnect(lab.client.netns.fd, to), "client");
  };
  expect(unacceptedAt(native(), lab.pod.netns.fd)).toEqual([]);
  using _first = await connect(15001);
  using _its = await connect(8080);
  (await connect(15001)).close();
  expect(unacceptedAt(native(), lab.pod.netns.fd)).toEqual([
    { listener: expect.any(BigInt), port: 15001, connections: 2 },
  ]);
});

test("the cgroup id is the inode of the process's cgroup2 directory", () => {
  using _udp = OwnedFd.adopt(
    native().udpSocket(lab.pod.netns.fd, { family: 6, bind: { address: "::", port: 15053 } }),
    "udp",
  );
  const [path] = /^0::(.*)$/m.exec(readFileSync("/proc/self/cgroup", "utf8"))?.slice(1) ?? [];
  const [mount] = /^\S+ (\S+) cgroup2 /m.exec(readFileSync("/proc/self/mounts", "utf8"))?.slice(1) ?? [];
  expect(native().sockets(lab.pod.netns.fd, { protocol: "udp" })).toEqual([
    expect.objectContaining({
      family: 6,
      protocol: "udp",
      src: "::",
      srcPort: 15053,
      cgroupId: statSync(`${mount}${path}`, { bigint: true }).ino,
    }),
  ]);
});

test("states filter, and a state out of range is refused", () => {
  using _listener = OwnedFd.adopt(
    native().tcpListen(lab.pod.netns.fd, { family: 6, bind: { address: "::1", port: 80 } }),
    "listener",
  );
  expect(native().sockets(lab.pod.netns.fd, { protocol: "tcp", states: [1, 2] })).toEqual([]);
  expect(native().sockets(lab.pod.netns.fd, { protocol: "tcp", states: [10] })).toHaveLength(1);
  expect(() => native().sockets(lab.pod.netns.fd, { protocol: "tcp", states: [32] })).toThrow(TypeError);
});

test("two thousand sockets are all listed", () => {
  const fds = Array.from({ length: 2000 }, (_, i) =>
    OwnedFd.adopt(
      native().udpSocket(lab.pod.netns.fd, { family: 4, bind: { address: "127.0.0.1", port: 20_000 + i } }),
      "udp",
    ),
  );
  try {
    const listed = native().sockets(lab.pod.netns.fd, { protocol: "udp" });
    expect(new Set(listed.map(({ srcPort }) => srcPort)).size).toBe(2000);
  } finally {
    for (const fd of fds) fd.close();
  }
});
