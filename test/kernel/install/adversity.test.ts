// SPDX-License-Identifier: Apache-2.0
// Where the node's directories can't be written: full, read-only, immutable, not permitted, mounted over.
// Each in a mount namespace of its own; then the obstacle goes, and the keeper gets on by itself.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { chmodSync, chownSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { createInterface } from "node:readline";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import type { InstallerConfig } from "../../../install/installer.ts";
import { bundled } from "../../support/bundled.ts";
import { CniNode, ENTRY, fixture, PLUGIN } from "../../support/cni-node.ts";
import type { KeeperState } from "../../support/keeper-process.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

const CALICO = fixture("10-calico.conflist").toString("latin1");
const MERGED = fixture("10-calico.merged.conflist").toString("latin1");

const scratch = new ScratchDir();
let program: string;
beforeAll(async () => {
  program = await bundled("keeper-process.ts", scratch);
});
afterAll(() => scratch[Symbol.dispose]());

let node: CniNode;
let keeper: KeeperProcess | undefined;
beforeEach(() => {
  node = new CniNode();
  node.write("10-calico.conflist", CALICO, 0o600);
});
afterEach(async () => {
  await keeper?.stop();
  keeper = undefined;
  node[Symbol.dispose]();
});

/** A keeper behind another program's command line, asked over its standard input. */
class KeeperProcess {
  private readonly child: ChildProcess;
  private readonly answers: AsyncIterator<string>;

  constructor(wrap: readonly string[], config: InstallerConfig) {
    const order = JSON.stringify({ config, entry: ENTRY });
    const [command = "", ...args] = [...wrap, process.execPath, program, order];
    this.child = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
    const { stdout } = this.child;
    if (stdout === null) throw new Error("no standard output");
    this.answers = createInterface({ input: stdout })[Symbol.asyncIterator]();
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  async ask(question = "state"): Promise<KeeperState> {
    this.child.stdin?.write(`${question}\n`);
    const { value } = await this.answers.next();
    return JSON.parse(String(value)) as KeeperState;
  }

  /** In its mount namespace. */
  run(...argv: string[]): void {
    execFileSync("nsenter", [`--mount=/proc/${this.pid}/ns/mnt`, "--", ...argv]);
  }

  /** A file as it is there. */
  read(path: string): string {
    return readFileSync(`/proc/${this.pid}/root${path}`, "latin1");
  }

  names(path: string): string[] {
    return readdirSync(`/proc/${this.pid}/root${path}`).sort();
  }

  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.child.once("exit", resolve));
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    this.child.stdin?.end();
    await ended;
  }
}

/** `setup` in a mount namespace of its own, with the directories as $NET and $BIN, and then the keeper. */
function start(setup: string, config: Partial<InstallerConfig> = {}): KeeperProcess {
  const script = `set -e; NET=${node.netDir}; BIN=${node.dir.file("bin")}; ${setup}\nexec "$@"`;
  const wrap = ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", script, "sh"];
  keeper = new KeeperProcess(wrap, node.config(config));
  return keeper;
}

const until = async (process: KeeperProcess, holds: (state: KeeperState) => void) =>
  vi.waitFor(async () => holds(await process.ask()), { timeout: 20_000, interval: 20 });
const installed = (process: KeeperProcess) => until(process, ({ missing }) => expect(missing).toBeNull());

/** What it was told to do about it. */
const remedies = ({ log }: KeeperState) =>
  log.flatMap(({ fields }) => (fields.remedy === undefined ? [] : [fields.remedy]));

describe("a full disk", () => {
  const FULL = (dir: string) => `
    cp -a $NET/10-calico.conflist /dev/shm/$$.conf
    mount -t tmpfs -o size=16k tmpfs ${dir}
    [ ${dir} = $BIN ] || cp -a /dev/shm/$$.conf ${dir}/10-calico.conflist
    rm /dev/shm/$$.conf
    dd if=/dev/zero of=${dir}/filler bs=1k 2>/dev/null || true`;

  it.each([
    ["configurations", "$NET"],
    ["plugins", "$BIN"],
  ])("for %s: said, nothing half-written, and installed when there is room", async (_what, dir) => {
    const process = start(FULL(dir));
    await until(process, ({ missing }) => expect(missing).toMatch(/^CNI plugin: .*ENOSPC/));
    expect(remedies(await process.ask())).toEqual(expect.arrayContaining([expect.stringContaining("free space")]));
    expect(process.read(node.conf("10-calico.conflist"))).toBe(CALICO);
    const path = dir === "$NET" ? node.netDir : node.dir.file("bin");
    expect(process.names(path)).toEqual(dir === "$NET" ? ["10-calico.conflist", "filler"] : ["filler"]);
    process.run("rm", `${path}/filler`);
    await installed(process);
    expect(process.read(node.conf("10-calico.conflist"))).toBe(MERGED);
    expect(process.read(node.binary)).toBe(PLUGIN);
  });

  it("when a single plugin's configuration is to become a list: it stays in use", async () => {
    rmSync(node.conf("10-calico.conflist"));
    node.write("10-calico.conflist", fixture("00-multus.conf"));
    const process = start(`${FULL("$NET")}; mv $NET/10-calico.conflist $NET/00-multus.conf`);
    await until(process, ({ missing }) => expect(missing).toMatch(/ENOSPC/));
    expect(process.names(node.netDir)).toEqual(["00-multus.conf", "filler"]);
    process.run("rm", node.conf("filler"));
    await installed(process);
    expect(process.names(node.netDir)).toEqual(["00-multus.conf.ambient-cni-original", "00-multus.conflist"]);
  });

  it("does not keep the configuration from being given back", async () => {
    const process = start(FULL("$NET").replace("dd ", "true "));
    await installed(process);
    const filler = node.conf("filler");
    process.run(
      "sh",
      "-c",
      `dd if=/dev/zero of=${filler} bs=1k 2>/dev/null; dd if=/dev/zero of=${filler}2 bs=1 2>/dev/null; true`,
    );
    expect(() => process.run("sh", "-c", `echo > ${filler}3 && grep -q . ${filler}3`)).toThrow();
    expect((await process.ask("remove")).failure).toBeNull();
    expect(process.read(node.conf("10-calico.conflist"))).toBe(CALICO);
  });
});

describe("a read-only directory", () => {
  it.each([
    ["configurations", "$NET"],
    ["plugins", "$BIN"],
  ])("of %s: said, and installed when it is writable", async (_what, dir) => {
    const process = start(`mount --bind ${dir} ${dir}; mount -o remount,ro,bind ${dir}`);
    await until(process, ({ missing }) => expect(missing).toMatch(/EROFS/));
    expect(remedies(await process.ask())).toEqual(expect.arrayContaining([expect.stringContaining("global.platform")]));
    expect(node.read("10-calico.conflist")).toBe(CALICO);
    process.run("mount", "-o", "remount,rw,bind", dir === "$NET" ? node.netDir : node.dir.file("bin"));
    await installed(process);
    expect(node.read("10-calico.conflist")).toBe(MERGED);
  });

  it("of configurations, when everything is in place already: ready", async () => {
    await node.installer().install();
    const process = start("mount --bind $NET $NET; mount -o remount,ro,bind $NET");
    await installed(process);
  });
});

it("a directory that is not permitted without CAP_DAC_OVERRIDE", async () => {
  chownSync(node.netDir, 65534, 65534);
  chmodSync(node.netDir, 0o700);
  const caps = "-dac_override,-dac_read_search";
  keeper = new KeeperProcess(["setpriv", `--bounding-set=${caps}`, `--inh-caps=${caps}`], node.config());
  await until(keeper, ({ missing }) => expect(missing).toMatch(/EACCES/));
  expect(remedies(await keeper.ask())).toEqual(expect.arrayContaining([expect.stringContaining("CAP_DAC_OVERRIDE")]));
  chownSync(node.netDir, 0, 0);
  await installed(keeper);
  expect(node.read("10-calico.conflist")).toBe(MERGED);
});

it("a configuration that is immutable", async () => {
  // Older kernels have no such flag in memory.
  node[Symbol.dispose]();
  node = new CniNode(tmpdir());
  node.write("10-calico.conflist", CALICO);
  execFileSync("chattr", ["+i", node.conf("10-calico.conflist")]);
  try {
    const process = start("");
    await until(process, ({ missing }) => expect(missing).toMatch(/EPERM/));
    expect(remedies(await process.ask())).toEqual(expect.arrayContaining([expect.stringContaining("lsattr")]));
    expect(node.names()).toEqual(["10-calico.conflist"]);
    execFileSync("chattr", ["-i", node.conf("10-calico.conflist")]);
    await installed(process);
  } finally {
    execFileSync("chattr", ["-i", node.conf("10-calico.conflist")]);
  }
});

it("a configuration that is a mount point of its own: removal gives back the others, and says which it can't", async () => {
  for (const name of ["05-a.conflist", "10-calico.conflist", "20-c.conflist"]) node.write(name, MERGED);
  const process = start("mount --bind $NET/10-calico.conflist $NET/10-calico.conflist");
  await installed(process);
  expect((await process.ask("remove")).failure).toBe("MOUNT_POINT");
  for (const name of ["05-a.conflist", "20-c.conflist"]) expect(process.read(node.conf(name))).toBe(CALICO);
  expect(process.read(node.conf("10-calico.conflist"))).toBe(MERGED);
  await expect(node.installer().restore()).resolves.toBeUndefined();
  expect(node.read("10-calico.conflist")).toBe(CALICO);
});

it("no inotify watch to be had: polled, and said", async () => {
  const script = 'echo 0 > /proc/sys/user/max_inotify_watches; exec "$@"';
  const wrap = ["unshare", "--user", "--map-root-user", "--", "sh", "-c", script, "sh"];
  keeper = new KeeperProcess(wrap, node.config());
  await installed(keeper);
  const { log } = await keeper.ask();
  expect(log).toContainEqual(
    expect.objectContaining({
      message: expect.stringContaining("polled"),
      fields: { error: expect.stringContaining("ENOSPC") },
    }),
  );
  node.write("10-calico.conflist", CALICO);
  await vi.waitFor(() => expect(node.read("10-calico.conflist")).toBe(MERGED), { timeout: 10_000 });
});

it("mode and owner of a configuration survive", async () => {
  chownSync(node.conf("10-calico.conflist"), 4711, 4712);
  chmodSync(node.conf("10-calico.conflist"), 0o640);
  const process = start("");
  await installed(process);
  const { uid, gid, mode } = statSync(node.conf("10-calico.conflist"));
  expect([uid, gid, mode & 0o7777]).toEqual([4711, 4712, 0o640]);
});

it("the plugin's file is what the image has, whatever was there", async () => {
  writeFileSync(node.binary, "torn", { mode: 0o600 });
  await installed(start(""));
  expect(readFileSync(node.binary, "latin1")).toBe(PLUGIN);
});
