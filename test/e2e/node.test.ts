// SPDX-License-Identifier: Apache-2.0
// What an agent under the stock chart sees of its node: the cgroup tree and bpffs only through /host/proc.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { build } from "esbuild";
import { expect, test } from "vitest";
import { cgroup2Root } from "../../src/sandbox/cgroup.ts";
import { chart } from "../../src/sandbox/charts.ts";
import { builtFiles, startJailed } from "../../src/sandbox/jail.ts";
import { type NodeOptions, removeStaleSandboxes, SandboxNode } from "../../src/sandbox/node.ts";
import type { Outlook } from "../support/cgroup-onlooker.ts";
import { PROGRAM } from "../support/sandbox.ts";
import { ScratchDir } from "../support/scratch-dir.ts";

const SOCKET = "/run/ztunnel/onlooker.sock";
const CONNECT = `require(process.argv[1]).seqpacketConnect("${SOCKET}", { packet() {}, end() {} }); setInterval(() => {}, 1e6);`;

/** Pid of a process of ours in the node's pid namespace. */
function pidOnNode(pid: number): number {
  const [, pids = ""] = /^NSpid:\s+(.*)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
  return Number(pids.split(/\s+/)[1]);
}

interface Seen {
  readonly outlook: Outlook;
  readonly ztunnel: number;
  readonly cgroup: string;
}

/** Runs the onlooker in the jail of a new node, and a peer of another pod that connects to it. */
async function look(options: NodeOptions): Promise<Seen> {
  using scratch = new ScratchDir();
  const program = scratch.file("onlooker.mjs");
  const source = new URL("../support/cgroup-onlooker.ts", import.meta.url).pathname;
  await build({ entryPoints: [source], outfile: program, bundle: true, platform: "node", format: "esm" });
  copyFileSync(join(dirname(PROGRAM), "agent.node"), scratch.file("agent.node"));
  const node = new SandboxNode(options);
  try {
    await node.start();
    const cgroup = node.cgroups.container("0b8bd02c-6c17-4d56-bb0a-5d2ba6b14b8a", "ztunnel");
    const jailed = startJailed(node, {
      chart: chart("newest"),
      program,
      plugin: builtFiles(PROGRAM).plugin,
      env: {},
      args: ["--", "/host/proc", SOCKET, "1"],
    });
    let errors = "";
    jailed.process.stderr?.on("data", (chunk: Buffer) => {
      errors += chunk.toString();
    });
    const out = jailed.process.stdout;
    if (out === null) throw new Error("the jail has no output");
    const lines = createInterface({ input: out })[Symbol.asyncIterator]();
    expect((await lines.next()).value, errors).toBe("built");
    jailed.process.stdin?.end("go\n");
    expect((await lines.next()).value, errors).toBe("listening");
    const container = ["unshare", "--pid", "--fork", "--kill-child=KILL", process.execPath, "-e", CONNECT];
    const ztunnel = node.spawn([...container, scratch.file("agent.node")], { cgroup, stdio: "ignore" });
    const answer = await lines.next();
    expect(answer.done, errors).toBe(false);
    return {
      outlook: JSON.parse(String(answer.value)) as Outlook,
      ztunnel: pidOnNode(ztunnel.leafPid()),
      cgroup: cgroup.slice(node.cgroups.root.length),
    };
  } finally {
    await node.kill();
    await node.remove();
  }
}

test("the jailed agent reaches the node's tree and bpffs, and finds a ztunnel's process and cgroup", async () => {
  const { outlook, ztunnel, cgroup } = await look({});
  expect(outlook.reason).toBeUndefined();
  expect(outlook.cgroup2).toBe(`/host/proc/1/root${cgroup2Root()}`);
  expect(outlook.bpffs).toBe("/host/proc/1/root/sys/fs/bpf");
  expect(outlook.bpffsWritable).toBe(true);
  expect(outlook.placed).toEqual(["/system/init"]);
  expect(outlook.peer).toEqual({ credential: 0, onNode: ztunnel });
  expect(outlook.peerCgroup).toBe(cgroup);
});

test("a node without bpffs: none is found, and the reason says where it was looked for", async () => {
  const { outlook } = await look({ bpffs: false });
  expect(outlook.cgroup2).toBe(`/host/proc/1/root${cgroup2Root()}`);
  expect(outlook.bpffs).toBeUndefined();
  expect(outlook.noBpffs).toContain("/host/proc/1/root: none is mounted");
});

test("a sandbox of another pid namespace is no leftover", async () => {
  // Whose pid is nobody's here.
  const name = "ambient-cni-sandbox-4194305-0";
  const cgroup = join(cgroup2Root(), name);
  mkdirSync(join(cgroup, "kubepods"), { recursive: true });
  const other = spawn("sleep", ["60"]);
  try {
    writeFileSync(join(cgroup, "cgroup.procs"), String(other.pid));
    await removeStaleSandboxes();
    expect(readdirSync(cgroup)).toContain("kubepods");
    other.kill("SIGKILL");
    await once(other, "exit");
    await removeStaleSandboxes();
    expect(existsSync(cgroup)).toBe(false);
  } finally {
    other.kill("SIGKILL");
  }
});
