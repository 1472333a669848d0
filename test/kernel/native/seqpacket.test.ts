// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, readlinkSync, rmSync, statSync, unlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import type { SeqpacketConnection, SeqpacketServer } from "../../../src/native/binding.ts";
import { native } from "../../../src/native/load.ts";
import { createNetns, netnsIdOf } from "../../../src/native/netns.ts";
import { guardFds } from "../../support/fds.ts";
import { ourFds } from "../../support/process-fds.ts";

/** Of what a busy machine takes its time for. */
const PATIENT = { timeout: 10_000 };

guardFds();

/** One end as the tests see it. */
interface End {
  connection: SeqpacketConnection | undefined;
  readonly packets: { text: string; size: number; fds: readonly number[]; truncated: boolean }[];
  readonly ends: (Error | undefined)[];
}

let dir: string;
let path: string;
let hostile: string;
let server: SeqpacketServer;
let peers: End[];
let children: ChildProcess[];

function handlerOf(end: End) {
  return {
    packet(message: Buffer, fds: number[], truncated: boolean) {
      end.packets.push({ text: message.toString("latin1"), size: message.length, fds, truncated });
    },
    end(error: Error | undefined) {
      end.ends.push(error);
    },
  };
}

function connect(): End & { connection: SeqpacketConnection } {
  const end: End = { connection: undefined, packets: [], ends: [] };
  return Object.assign(end, { connection: native().seqpacketConnect(path, handlerOf(end)) });
}

async function accepted(index = 0): Promise<End & { connection: SeqpacketConnection }> {
  await vi.waitFor(() => expect(peers[index]).toBeDefined(), PATIENT);
  const end = peers[index];
  const connection = end?.connection;
  if (end === undefined || connection === undefined) throw new Error("nobody connected");
  return Object.assign(end, { connection });
}

function attack(...argv: string[]): ChildProcess {
  const child = spawn(hostile, [path, ...argv], { stdio: "inherit" });
  children.push(child);
  return child;
}

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "seqpacket-"));
  hostile = join(dir, "hostile-peer");
  execFileSync("gcc", ["-O1", "-Wall", "-o", hostile, "test/support/hostile-peer.c"]);
});
afterAll(() => {
  rmSync(dir, { recursive: true });
});
beforeEach(() => {
  path = join(dir, "zds.sock");
  peers = [];
  children = [];
  server = native().seqpacketListen(path, 0o600, (connection) => {
    const end: End = { connection, packets: [], ends: [] };
    peers.push(end);
    return handlerOf(end);
  });
});
afterEach(async () => {
  server.close();
  for (const { connection } of peers) connection?.close();
  for (const child of children) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill("SIGKILL");
    await once(child, "exit");
  }
  rmSync(path, { force: true });
});

test("datagrams keep their bounds and order in both directions, and say who sends", async () => {
  const client = connect();
  const { connection, packets } = await accepted();
  expect(connection.peer).toEqual({ pid: process.pid, uid: 0, gid: 0 });
  for (const text of ["a", "bb", "ccc"]) client.connection.send(Buffer.from(text));
  await vi.waitFor(() => expect(packets.map(({ text }) => text)).toEqual(["a", "bb", "ccc"]), PATIENT);
  connection.send(Buffer.from("answer"));
  await vi.waitFor(
    () => expect(client.packets).toEqual([{ text: "answer", size: 6, fds: [], truncated: false }]),
    PATIENT,
  );
  client.connection.close();
});

test("a netns travels as an fd: fresh, close-on-exec, and ours stays open", async () => {
  using netns = createNetns();
  const client = connect();
  client.connection.send(Buffer.from("add"), netns.fd);
  const { packets } = await accepted();
  await vi.waitFor(() => expect(packets).toHaveLength(1), PATIENT);
  const [fd] = packets[0]?.fds ?? [];
  if (fd === undefined) throw new Error("no fd arrived");
  expect(fd).not.toBe(netns.fd);
  expect(netnsIdOf(fd)).toBe(netns.id);
  expect(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8")).toMatch(/^flags:\s+02\d{6}$/m);
  native().close(fd);
  expect(native().netnsCookie(netns.fd)).toBeGreaterThan(0n);
  client.connection.close();
});

test("4096 bytes arrive whole, one more is cut and marked", async () => {
  const client = connect();
  client.connection.send(Buffer.alloc(4096, "x"));
  client.connection.send(Buffer.alloc(4097, "y"));
  client.connection.send(Buffer.from("next"));
  const { packets } = await accepted();
  await vi.waitFor(() => expect(packets).toHaveLength(3), PATIENT);
  expect(packets.map(({ size, truncated }) => ({ size, truncated }))).toEqual([
    { size: 4096, truncated: false },
    { size: 4096, truncated: true },
    { size: 4, truncated: false },
  ]);
  client.connection.close();
});

test("a peer that reads nothing makes send throw EAGAIN, and reading cures it", async () => {
  const client = connect();
  const { connection, packets } = await accepted();
  const message = Buffer.alloc(4096);
  const fill = () => {
    for (let sent = 0; ; sent++) {
      try {
        client.connection.send(message);
      } catch (error) {
        expect(error).toMatchObject({ code: "EAGAIN", syscall: "sendmsg" });
        return sent;
      }
    }
  };
  const first = fill();
  expect(first).toBeGreaterThan(10);
  await vi.waitFor(() => expect(packets).toHaveLength(first), PATIENT);
  expect(fill()).toBe(first);
  client.connection.close();
  connection.close();
});

test("a closed connection: no calls work, the other end is told once, send gives EPIPE", async () => {
  const client = connect();
  const { connection, ends } = await accepted();
  client.connection.close();
  client.connection.close();
  for (const use of [() => client.connection.send(Buffer.from("x")), () => client.connection.peerPidfd()]) {
    expect(use).toThrow(expect.objectContaining({ code: "EBADF", message: expect.stringContaining("is closed") }));
  }
  expect(() => connection.send(Buffer.from("x"))).toThrow(expect.objectContaining({ code: "EPIPE" }));
  await vi.waitFor(() => expect(ends).toEqual([undefined]), PATIENT);
  expect(() => connection.send(Buffer.from("x"))).toThrow(expect.objectContaining({ code: "EBADF" }));
  expect(client.ends).toEqual([]);
});

test("an empty message and a foreign fd number are refused before anything is sent", () => {
  const client = connect();
  expect(() => client.connection.send(Buffer.alloc(0))).toThrow(expect.objectContaining({ code: "EINVAL" }));
  expect(() => client.connection.send(Buffer.from("x"), 9999)).toThrow(expect.objectContaining({ code: "EBADF" }));
  client.connection.close();
});

test.each([1, 100])("%i last words of a peer that dies with unread messages are still delivered", async (count) => {
  attack("unread", String(count));
  const { connection, packets, ends } = await accepted();
  connection.send(Buffer.from("never read"));
  await vi.waitFor(() => expect(ends).toHaveLength(1), PATIENT);
  expect(packets.map(({ text }) => text)).toEqual(Array(count).fill("last words"));
  expect(ends[0]).toMatchObject({ code: "ECONNRESET" });
});

test("the pidfd is the peer's, and gone peers have none to give", async () => {
  const child = attack("silent");
  const { connection, ends } = await accepted();
  expect(connection.peer.pid).toBe(child.pid);
  const pidfd = connection.peerPidfd();
  expect(readlinkSync(`/proc/self/fd/${pidfd}`)).toMatch(/pidfd/);
  expect(readFileSync(`/proc/self/fdinfo/${pidfd}`, "utf8")).toMatch(new RegExp(`^Pid:\\s+${child.pid}$`, "m"));
  native().close(pidfd);
  child.kill("SIGKILL");
  await vi.waitFor(() => expect(ends).toEqual([undefined]), PATIENT);
});

test.each([1, 16, 253])("%i fds in one datagram all arrive", async (count) => {
  attack("fds", String(count));
  const { packets } = await accepted();
  await vi.waitFor(() => expect(packets).toHaveLength(1), PATIENT);
  expect(packets[0]).toMatchObject({ text: "fds", truncated: false });
  expect(packets[0]?.fds).toHaveLength(count);
  for (const fd of packets[0]?.fds ?? []) native().close(fd);
});

test("an empty datagram is the end of the connection, and its fds are closed", async () => {
  attack("empty", "20");
  const { ends, packets } = await accepted();
  await vi.waitFor(() => expect(ends).toEqual([undefined]), PATIENT);
  expect(packets).toEqual([]);
  expect(ourFds().filter((fd) => fd.endsWith(" /dev/null")).length).toBeLessThan(10);
});

test("a datagram of 100 kB is cut, its fd arrives", async () => {
  attack("large", "100000");
  const { packets } = await accepted();
  await vi.waitFor(() => expect(packets).toHaveLength(1), PATIENT);
  expect(packets[0]).toMatchObject({ size: 4096, truncated: true });
  for (const fd of packets[0]?.fds ?? []) native().close(fd);
  expect(packets[0]?.fds).toHaveLength(1);
});

test("a flood of one peer does not keep another one waiting until it ends", async () => {
  attack("flood", "100000");
  const flood = await accepted();
  await vi.waitFor(() => expect(flood.packets.length).toBeGreaterThan(0), PATIENT);
  const client = connect();
  client.connection.send(Buffer.from("me too"));
  const quiet = await accepted(1);
  await vi.waitFor(() => expect(quiet.packets).toHaveLength(1), { ...PATIENT, interval: 1 });
  const before = flood.packets.length;
  await vi.waitFor(() => expect(flood.ends).toEqual([undefined]), { timeout: 20_000 });
  expect(flood.packets).toHaveLength(100_000);
  expect(before).toBeLessThan(100_000);
  client.connection.close();
});

test("closing inside a callback ends it: no more packets, no end", async () => {
  const client = connect();
  const { connection } = await accepted();
  client.connection.close();
  connection.close();

  const got: string[] = [];
  const self = native().seqpacketConnect(path, {
    packet: (message) => {
      got.push(message.toString());
      self.close();
    },
    end: () => got.push("end"),
  });
  const other = await accepted(1);
  for (const text of ["1", "2", "3"]) other.connection.send(Buffer.from(text));
  await vi.waitFor(() => expect(other.ends).toHaveLength(1), PATIENT);
  expect(got).toEqual(["1"]);
});

test("an accept callback may close the connection it was given", async () => {
  const second = join(dir, "second.sock");
  const refusing = native().seqpacketListen(second, 0o600, (connection) => {
    connection.close();
    return { packet: () => {}, end: () => {} };
  });
  const end: End = { connection: undefined, packets: [], ends: [] };
  native().seqpacketConnect(second, handlerOf(end));
  await vi.waitFor(() => expect(end.ends).toEqual([undefined]), PATIENT);
  refusing.close();
  unlinkSync(second);
});

test("the socket file has the mode asked for whatever the umask, and stays after close", () => {
  const other = join(dir, "mode.sock");
  const before = process.umask(0o777);
  try {
    native()
      .seqpacketListen(other, 0o666, () => ({ packet: () => {}, end: () => {} }))
      .close();
  } finally {
    process.umask(before);
  }
  expect(statSync(other).mode & 0o7777).toBe(0o666);
  expect(() => native().seqpacketListen(other, 0o600, () => ({ packet: () => {}, end: () => {} }))).toThrow(
    expect.objectContaining({ code: "EADDRINUSE", message: expect.stringContaining(other) }),
  );
  expect(() => native().seqpacketConnect(other, { packet: () => {}, end: () => {} })).toThrow(
    expect.objectContaining({ code: "ECONNREFUSED" }),
  );
  unlinkSync(other);
});

test("a path of 107 bytes works, one more is refused", () => {
  const long = join(dir, "x".repeat(107 - dir.length - 1));
  const refuse = () => ({ packet: () => {}, end: () => {} });
  native().seqpacketListen(long, 0o600, refuse).close();
  unlinkSync(long);
  expect(() => native().seqpacketListen(`${long}x`, 0o600, refuse)).toThrow(
    expect.objectContaining({ code: "ENAMETOOLONG", message: expect.stringContaining("107 bytes") }),
  );
  expect(() => native().seqpacketListen("", 0o600, refuse)).toThrow(expect.objectContaining({ code: "EINVAL" }));
});

test("after close nobody is accepted any more", () => {
  server.close();
  server.close();
  expect(() => connect()).toThrow(expect.objectContaining({ code: "ECONNREFUSED" }));
});
