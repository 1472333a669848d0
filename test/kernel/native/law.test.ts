// SPDX-License-Identifier: Apache-2.0
// The netns law: whatever a call does, and also when it fails, every thread of the process is where it
// was, and no fd stays. The table has a row for every function of the addon.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readlinkSync, rmSync, unlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { KNOBS } from "../../../src/dataplane/ebpf/node.ts";
import type { NativeBinding, SocketInfo, SynFrame } from "../../../src/native/binding.ts";
import { native } from "../../../src/native/load.ts";
import { createNetns, type HeldNetns } from "../../../src/native/netns.ts";
import { guardFds } from "../../support/fds.ts";
import { LabCgroups, labBpffs } from "../../support/lab-bpf.ts";
import { threadNetns } from "../../support/process-fds.ts";

guardFds();

let netns: HeldNetns;
let peer: HeldNetns;
let dir: string;
beforeEach(() => {
  netns = createNetns();
  peer = createNetns();
  dir = mkdtempSync(join(tmpdir(), "law-"));
});
afterEach(() => {
  netns.close();
  peer.close();
  rmSync(dir, { recursive: true });
});

const ROUTE = { family: 4, table: 100, type: "local", dst: "0.0.0.0", prefix: 0, oif: 1 } as const;
const RULE = { family: 4, priority: 5, table: 100, fwmark: 1 } as const;
const SOCKET = { family: 4, bind: { address: "127.0.0.1", port: 8080 } } as const;
const GONE: SocketInfo = {
  ...{ family: 4, protocol: "tcp", state: 1, uid: 0, inode: 0, mark: 0, queued: 0, cgroupId: 0n, cookie: 1n },
  ...{ src: "127.0.0.1", srcPort: 1, dst: "127.0.0.1", dstPort: 2 },
};
const SYN: SynFrame = {
  ...{ family: 4, ifindex: 0, srcMac: "02:00:00:00:00:01", dstMac: "02:00:00:00:00:02" },
  ...{ src: "192.0.2.1", srcPort: 1, dst: "192.0.2.2", dstPort: 2 },
};
const PROGRAM = { env: ["PATH=/usr/bin:/bin"], timeoutMs: 5000, maxStdout: 1000, maxStderr: 1000 } as const;
const QUIET = { packet: () => {}, end: () => {} };

type Call = (addon: NativeBinding) => unknown;
/** `fails` is absent where nothing outside can make the call fail. */
type Row = { readonly works: Call; readonly fails?: Call };

const closed = 100_000;
const withListener = (use: (addon: NativeBinding, fd: number) => unknown): Call => {
  return (addon) => {
    const fd = addon.tcpListen(netns.fd, SOCKET);
    try {
      return use(addon, fd);
    } finally {
      addon.close(fd);
    }
  };
};
const withLink = (use: Call): Call => {
  return (addon) => {
    addon.vethAdd(netns.fd, "a0", "b0", peer.fd);
    return use(addon);
  };
};

/** A mount namespace in which nothing is mounted at /sys/fs/bpf, and which nobody sees. */
const withMountNamespace = (use: (addon: NativeBinding, path: string) => unknown): Call => {
  return async (addon) => {
    const script = "while umount /sys/fs/bpf 2>/dev/null; do :; done; echo ready; exec cat";
    const child = spawn("unshare", ["--mount", "bash", "--norc", "-c", script], { stdio: ["pipe", "pipe", "inherit"] });
    try {
      await once(child.stdout, "data");
      await use(addon, `/proc/${child.pid}/ns/mnt`);
    } finally {
      child.stdin.end();
      await once(child, "exit");
    }
  };
};

const LAW: Record<Exclude<keyof NativeBinding, "abiVersion">, Row> = {
  setErrorClass: {
    works: () => {},
    fails: (a) => a.setErrorClass(JSON.parse("null")),
  },
  bpfOpen: {
    works: (a) => a.bpfOpen(`${labBpffs()}/law/v1`, KNOBS).close(),
    fails: (a) => a.bpfOpen("/tmp/law", KNOBS),
  },
  bpfVerify: { works: (a) => a.bpfRemove(`${labBpffs()}/law`), fails: (a) => a.bpfVerify(Buffer.from("no object")) },
  bpfRemove: { works: (a) => a.bpfRemove(`${labBpffs()}/none`), fails: (a) => a.bpfRemove("/proc/self") },
  bpfPinned: { works: (a) => a.bpfPinned(`${labBpffs()}/none`), fails: (a) => a.bpfPinned("/proc/self/exe") },
  bpfVersions: { works: (a) => a.bpfVersions(KNOBS) },
  bpfNetnsLinked: { works: (a) => a.bpfNetnsLinked(netns.fd), fails: (a) => a.bpfNetnsLinked(closed) },
  bpfFilterState: { works: (a) => a.bpfFilterState(netns.fd, 1), fails: (a) => a.bpfFilterState(netns.fd, 99) },
  bpfFilterDetach: { works: (a) => a.bpfFilterDetach(netns.fd, 1), fails: (a) => a.bpfFilterDetach(closed, 1) },
  bpfCgroupFlags: {
    works: (a) => a.bpfCgroupFlags(LabCgroups.root.path, "ambient_connect4"),
    fails: (a) => a.bpfCgroupFlags("/tmp", "ambient_connect4"),
  },
  bpfCgroupPrograms: {
    works: (a) => a.bpfCgroupPrograms(LabCgroups.root.path, "ambient_connect4"),
    fails: (a) => a.bpfCgroupPrograms("/tmp", "ambient_connect4"),
  },
  clockState: { works: (a) => a.clockState() },
  fileExchange: {
    works: (a) => a.fileExchange(dir, dir),
    fails: (a) => a.fileExchange(dir, join(dir, "none")),
  },
  fileMove: {
    works: (a) => {
      a.fileMove(dir, `${dir}.moved`);
      a.fileMove(`${dir}.moved`, dir);
    },
    fails: (a) => a.fileMove(dir, tmpdir()),
  },
  close: { works: (a) => a.close(a.netnsOpen("/proc/self/ns/net")), fails: (a) => a.close(closed) },
  netnsOpen: {
    works: (a) => a.close(a.netnsOpen("/proc/thread-self/ns/net")),
    fails: (a) => a.netnsOpen("/proc/self/ns/pid"),
  },
  // Only where they change nothing do they leave every thread where it was.
  enterNetns: {
    works: (a) => {
      const own = a.netnsOpen("/proc/thread-self/ns/net");
      a.enterNetns(own);
      a.close(own);
    },
    fails: (a) => a.enterNetns(0),
  },
  enterRoot: { works: (a) => a.enterRoot("/"), fails: (a) => a.enterRoot("/dev/null") },
  netnsCreate: { works: (a) => a.close(a.netnsCreate()) },
  netnsIdentify: { works: (a) => a.netnsIdentify(netns.fd), fails: (a) => a.netnsIdentify(0) },
  netnsCookie: { works: (a) => a.netnsCookie(netns.fd), fails: (a) => a.netnsCookie(0) },
  openFds: { works: (a) => a.openFds() },
  links: { works: (a) => a.links(netns.fd), fails: (a) => a.links(0) },
  addresses: { works: (a) => a.addresses(netns.fd), fails: (a) => a.addresses(0) },
  routes: { works: (a) => a.routes(netns.fd, 4, 254), fails: (a) => a.routes(0, 4, 254) },
  rules: { works: (a) => a.rules(netns.fd, 6), fails: (a) => a.rules(0, 6) },
  vethAdd: {
    works: (a) => a.vethAdd(netns.fd, "a0", "b0", peer.fd),
    fails: (a) => a.vethAdd(netns.fd, "lo", "b0", peer.fd),
  },
  linkUp: { works: withLink((a) => a.linkUp(netns.fd, "a0")), fails: (a) => a.linkUp(netns.fd, "none") },
  linkDelete: { works: withLink((a) => a.linkDelete(netns.fd, "a0")), fails: (a) => a.linkDelete(netns.fd, "none") },
  addressAdd: {
    works: (a) => a.addressAdd(netns.fd, "lo", "10.0.0.1", 32),
    fails: (a) => a.addressAdd(netns.fd, "lo", "127.0.0.1", 8),
  },
  addressDelete: {
    works: (a) => a.addressDelete(netns.fd, "lo", "127.0.0.1", 8),
    fails: (a) => a.addressDelete(netns.fd, "lo", "10.0.0.1", 8),
  },
  routeReplace: {
    works: (a) => a.routeReplace(netns.fd, ROUTE),
    fails: (a) => a.routeReplace(netns.fd, { ...ROUTE, oif: 99 }),
  },
  routeDelete: {
    works: (a) => [a.routeReplace(netns.fd, ROUTE), a.routeDelete(netns.fd, ROUTE)],
    fails: (a) => a.routeDelete(netns.fd, ROUTE),
  },
  ruleAdd: {
    works: (a) => a.ruleAdd(netns.fd, RULE),
    fails: (a) => [a.ruleAdd(netns.fd, RULE), a.ruleAdd(netns.fd, RULE)],
  },
  ruleDelete: {
    works: (a) => [a.ruleAdd(netns.fd, RULE), a.ruleDelete(netns.fd, RULE)],
    fails: (a) => a.ruleDelete(netns.fd, RULE),
  },
  routeWatch: {
    works: (a) => a.routeWatch(netns.fd, () => {})(),
    fails: (a) => a.routeWatch(0, () => {}),
  },
  sysctlGet: {
    works: (a) => a.sysctlGet(netns.fd, "net/ipv4/ip_forward"),
    fails: (a) => a.sysctlGet(netns.fd, "net/none"),
  },
  sysctlSet: {
    works: (a) => a.sysctlSet(netns.fd, "net/ipv4/tcp_migrate_req", "1"),
    fails: (a) => a.sysctlSet(netns.fd, "net/ipv4/tcp_migrate_req", "many"),
  },
  mountBpffs: {
    works: withMountNamespace((a, path) => expect([a.mountBpffs(path), a.mountBpffs(path)]).toEqual([true, false])),
    fails: (a) => a.mountBpffs("/proc/self/ns/net"),
  },
  bpffsCreate: { works: (a) => a.close(a.bpffsCreate()) },
  tcpListen: {
    works: withListener(() => {}),
    fails: (a) => a.tcpListen(netns.fd, { family: 4, bind: { address: "192.0.2.1", port: 1 } }),
  },
  tcpAccept: {
    works: async (a) => {
      const listener = a.tcpListen(netns.fd, SOCKET);
      expect(a.tcpAccept(listener)).toBe(-1);
      const client = await a.tcpConnect(netns.fd, { family: 4, address: "127.0.0.1", port: 8080, timeout: 2000 });
      // The client's side is complete before the last ACK must have reached the listener.
      let accepted = -1;
      await expect.poll(() => (accepted = accepted < 0 ? a.tcpAccept(listener) : accepted)).toBeGreaterThanOrEqual(0);
      expect(a.remoteEndpoint(accepted)).toEqual(a.localEndpoint(client));
      for (const fd of [accepted, client, listener]) a.close(fd);
    },
    fails: (a) => a.tcpAccept(netns.fd),
  },
  tcpConnect: {
    works: async (a) => {
      const listener = a.tcpListen(netns.fd, SOCKET);
      a.close(await a.tcpConnect(netns.fd, { family: 4, address: "127.0.0.1", port: 8080, timeout: 2000 }));
      a.close(listener);
    },
    fails: (a) => a.tcpConnect(netns.fd, { family: 4, address: "127.0.0.1", port: 8080, timeout: 2000 }),
  },
  udpSocket: {
    works: (a) => a.close(a.udpSocket(netns.fd, SOCKET)),
    fails: (a) => a.udpSocket(netns.fd, { family: 4, device: "none" }),
  },
  originalDestination: {
    works: withListener((a, fd) => a.originalDestination(fd)),
    fails: (a) => a.originalDestination(netns.fd),
  },
  localEndpoint: {
    works: withListener((a, fd) => a.localEndpoint(fd)),
    fails: (a) => a.localEndpoint(netns.fd),
  },
  remoteEndpoint: {
    works: async (a) => {
      const listener = a.tcpListen(netns.fd, SOCKET);
      const fd = await a.tcpConnect(netns.fd, { family: 4, address: "127.0.0.1", port: 8080, timeout: 2000 });
      a.remoteEndpoint(fd);
      a.close(fd);
      a.close(listener);
    },
    fails: withListener((a, fd) => a.remoteEndpoint(fd)),
  },
  socketMark: { works: withListener((a, fd) => a.socketMark(fd)), fails: (a) => a.socketMark(netns.fd) },
  synSend: {
    works: withLink((a) => {
      a.linkUp(netns.fd, "a0");
      a.linkUp(peer.fd, "b0");
      const { index = 0, mac = "" } = a.links(netns.fd).find(({ name }) => name === "a0") ?? {};
      const socket = a.synSocket(netns.fd);
      a.synSend(socket, { ...SYN, ifindex: index, srcMac: mac });
      a.close(socket);
    }),
    fails: (a) => {
      const socket = a.synSocket(netns.fd);
      try {
        a.synSend(socket, { ...SYN, ifindex: 4711 });
      } finally {
        a.close(socket);
      }
    },
  },
  synSocket: { works: (a) => a.close(a.synSocket(netns.fd)), fails: (a) => a.synSocket(0) },
  sockets: {
    works: (a) => a.sockets(netns.fd, { protocol: "tcp" }),
    fails: (a) => a.sockets(0, { protocol: "udp" }),
  },
  socketDestroy: {
    works: (a) => a.socketDestroy(netns.fd, GONE),
    fails: (a) => a.socketDestroy(0, GONE),
  },
  nftTables: { works: (a) => a.nftTables(netns.fd), fails: (a) => a.nftTables(0) },
  nftChains: { works: (a) => a.nftChains(netns.fd), fails: (a) => a.nftChains(0) },
  nftTable: { works: (a) => a.nftTable(netns.fd, "inet", "none"), fails: (a) => a.nftTable(netns.fd, "no", "none") },
  nftSet: { works: (a) => a.nftTables(netns.fd), fails: (a) => a.nftSet(netns.fd, "inet", "none", "none") },
  nftDelete: {
    works: (a) => a.nftDelete(netns.fd, []),
    fails: (a) => a.nftDelete(netns.fd, [{ what: "table", family: "inet", table: "none" }]),
  },
  nftWatch: { works: (a) => a.nftWatch(netns.fd, () => {})(), fails: (a) => a.nftWatch(0, () => {}) },
  xtables: { works: (a) => a.xtables(netns.fd, 4), fails: (a) => a.xtables(0, 4) },
  conntrackReplies: {
    works: (a) => a.conntrackReplies(netns.fd, [GONE, GONE]),
    fails: (a) => a.conntrackReplies(0, [GONE]),
  },
  ipsetDestroy: { works: (a) => a.ipsetDestroy(netns.fd, "none"), fails: (a) => a.ipsetDestroy(netns.fd, "") },
  spawn: {
    works: (a) => a.spawn(netns.fd, { ...PROGRAM, argv: ["true"] }),
    fails: (a) => a.spawn(netns.fd, { ...PROGRAM, argv: ["/none"] }),
  },
  seqpacketListen: {
    works: (a) => a.seqpacketListen(join(dir, "a"), 0o600, () => QUIET).close(),
    fails: (a) => a.seqpacketListen(join(dir, "none", "a"), 0o600, () => QUIET),
  },
  seqpacketConnect: {
    works: (a) => {
      const path = join(dir, "b");
      const server = a.seqpacketListen(path, 0o600, () => QUIET);
      a.seqpacketConnect(path, QUIET).close();
      server.close();
      unlinkSync(path);
    },
    fails: (a) => a.seqpacketConnect(join(dir, "none"), QUIET),
  },
};

test("the table has a row for everything that the addon exports", () => {
  expect(Object.keys(LAW).sort()).toEqual(
    Object.keys(native())
      .filter((name) => name !== "abiVersion")
      .sort(),
  );
});

describe.each(Object.entries(LAW))("%s", (name, { works, fails }) => {
  const home = readlinkSync("/proc/self/ns/net");

  test("succeeds and leaves every thread at home", async () => {
    const settled = works(native());
    expect(threadNetns()).toEqual([home]);
    await settled;
    expect(threadNetns()).toEqual([home]);
  });

  if (fails === undefined) return;
  test("fails with an error that has a message, and leaves every thread at home", async () => {
    const failure = await Promise.resolve()
      .then(() => fails(native()))
      .then(
        () => undefined,
        (error: unknown) => error,
      );
    expect(failure).toBeInstanceOf(Error);
    if (name !== "setErrorClass") {
      expect(failure).toMatchObject({
        name: "NativeError",
        code: expect.stringMatching(/^E[A-Z]+$/),
        errno: expect.any(Number),
      });
    }
    expect(threadNetns()).toEqual([home]);
  });
});
