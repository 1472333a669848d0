// SPDX-License-Identifier: Apache-2.0
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { Child, type ChildOptions } from "../sys/child.ts";
import { type RunOptions, type RunResult, run } from "../sys/exec.ts";
import { CgroupTree, cgroup1Hierarchies } from "./cgroup.ts";
import { initCommand } from "./node-init.ts";

const PREFIX = "ambient-cni-sandbox-";
let made = 0;

/** Moves itself into the cgroups $0, then becomes the rest: a cgroup namespace begins where its maker is. */
const JOIN = [
  "bash",
  "--norc",
  "-c",
  'for cgroup in $0; do echo 0 > "$cgroup/cgroup.procs" || exit 1; done; exec "$@"',
] as const;

/** A minute: a process that waits for a disk can't be killed before it is served. */
const DYING_TURNS = 3000;

export interface NodeOptions {
  /** False: nothing is mounted at /sys/fs/bpf, as on some minimal hosts. */
  readonly bpffs?: boolean;
  /**
   * True: with all that a container runtime needs: mounts that propagate, the machine's v1 hierarchies, and an
   * /etc, /opt and /var of its own. Default false.
   */
  readonly runtime?: boolean;
}

export interface SpawnOptions extends ChildOptions {
  /** The program starts in this cgroup (CgroupTree.container) and in the node's cgroup namespace. */
  readonly cgroup?: string;
}

/**
 * One Kubernetes node without containers: pid, mount, cgroup and network namespaces and a bpffs of its
 * own, so that nothing in it touches the machine's network. Ending its pid 1 ends every process and every
 * network namespace in it.
 */
export class SandboxNode {
  /** Files of this sandbox on the machine; the same paths are visible inside the node. */
  readonly dir: string;
  readonly cgroups: CgroupTree;
  private init: Child | undefined;
  private initPid = 0;

  constructor(private readonly options: NodeOptions = {}) {
    const name = `${PREFIX}${process.pid}-${made++}`;
    this.dir = join(tmpdir(), name);
    // Not recursive: a directory that somebody else put there is not ours to use.
    mkdirSync(this.dir, { mode: 0o755 });
    for (const sub of ["opt/cni/bin", "etc/cni/net.d", "root", "secrets"]) {
      mkdirSync(join(this.dir, sub), { recursive: true });
    }
    this.cgroups = new CgroupTree(name, options.runtime === true ? cgroup1Hierarchies() : []);
  }

  path(...parts: string[]): string {
    return join(this.dir, ...parts);
  }

  /** pid of the node's init, in the machine's pid namespace. */
  get pid(): number {
    return this.initPid;
  }

  get netnsPath(): string {
    return `/proc/${this.initPid}/ns/net`;
  }

  /** kubelet's directory of a pod's logs: it names the pod to who looks at the node without the API. */
  logDir(namespace: string, name: string, uid: string): string {
    return `/proc/${this.initPid}/root/var/log/pods/${namespace}_${name}_${uid}`;
  }

  /**
   * Boots the node, the first time or after `kill`: /run is empty, everything else as it was left.
   * @throws Error with what the kernel or the shell said when namespaces can't be made
   */
  async start(): Promise<void> {
    rmSync(this.path("run"), { recursive: true, force: true });
    for (const sub of ["run/istio-cni", "run/ztunnel"]) mkdirSync(this.path(sub), { recursive: true });
    this.cgroups.create();
    const { bpffs = true, runtime = false } = this.options;
    const unshare = ["unshare", "--fork", "--pid", "--mount", "--net", "--uts", "--cgroup", "--kill-child=KILL"];
    if (runtime) unshare.push("--propagation=shared");
    this.init = new Child(
      [...this.joining(this.cgroups.root), ...unshare, "--mount-proc", ...initCommand(this.dir, { bpffs, runtime })],
      { stdio: ["pipe", "pipe", "pipe"] },
    );
    await firstLine(this.init, "ready");
    this.initPid = this.init.leafPid();
  }

  /** The command line that runs `argv` in the node's namespaces, with `cgroup` also in that cgroup. */
  enter(argv: readonly string[], cgroup?: string): string[] {
    const enter = ["nsenter", `--target=${this.initPid}`, "--mount", "--net", "--pid", "--uts"];
    // Joined by its path on the machine, before the mount namespace changes.
    return cgroup === undefined
      ? [...enter, "--", ...argv]
      : [...this.joining(cgroup), ...enter, "--cgroup", "--", ...argv];
  }

  private joining(cgroup: string): string[] {
    return [...JOIN, this.cgroups.everywhere(cgroup).join(" ")];
  }

  /** Runs a program on the node to its end. */
  run(argv: readonly string[], options: Omit<RunOptions, "netns">): Promise<RunResult> {
    return run(this.enter(argv), options);
  }

  /** Starts a long-running program on the node. */
  spawn(argv: readonly string[], { cgroup, ...options }: SpawnOptions = {}): Child {
    return new Child(this.enter(argv, cgroup), options);
  }

  /** Ends every process and network namespace of the node. Safe to call at any time, more than once. */
  async kill(): Promise<void> {
    this.init?.process.stdin?.end();
    this.init?.process.kill("SIGKILL");
    await this.init?.exited.catch(() => undefined);
    // Killed with its parent; the kernel has it end only after every other process of the node.
    for (let turn = 0; this.initPid !== 0 && alive(this.initPid) && turn < DYING_TURNS; turn++) await setTimeout(20);
    this.initPid = 0;
  }

  /** Removes the node's cgroups and files, once it is killed. */
  async remove(): Promise<void> {
    await this.cgroups.remove();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** False for a process that is gone, and for one that only waits for its parent to notice. */
function alive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

/** Waits for a program's first line of output. @throws Error with its stderr when it ends before. */
export function firstLine(child: Child, expected: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let out = "";
    let err = "";
    child.process.stdout?.on("data", (chunk: Buffer) => {
      if (out.length < 65_536) out += chunk.toString();
      if (out.split("\n").includes(expected)) resolve();
    });
    child.process.stderr?.on("data", (chunk: Buffer) => {
      if (err.length < 65_536) err += chunk.toString();
    });
    child.exited.then(
      ({ code, signal }) => reject(new Error(`ended (${signal ?? code}) before it was ready: ${err.trim()}`)),
      reject,
    );
  });
}

/** Removes what sandboxes of processes that were killed left on this machine. */
export async function removeStaleSandboxes(): Promise<void> {
  for (const name of new Set([...readdirSync(tmpdir()), ...CgroupTree.names()])) {
    const owner = new RegExp(`^${PREFIX}(\\d+)-\\d+$`).exec(name)?.[1];
    if (owner === undefined || existsSync(`/proc/${owner}`)) continue;
    const cgroups = CgroupTree.ofAnyNode(name);
    // Processes of a killed sandbox are going. Where they stay, its owner has another pid namespace and lives.
    for (let turn = 0; turn < 50 && cgroups.populated(); turn++) await setTimeout(20);
    if (cgroups.populated()) continue;
    await cgroups.remove();
    rmSync(join(tmpdir(), name), { recursive: true, force: true });
  }
}
