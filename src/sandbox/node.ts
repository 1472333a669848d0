// SPDX-License-Identifier: Apache-2.0
import { existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Child, type ChildOptions } from "../sys/child.ts";
import { type RunOptions, type RunResult, run } from "../sys/exec.ts";
import { CgroupTree, cgroup2Root } from "./cgroup.ts";

const PREFIX = "ambient-cni-sandbox-";
let made = 0;

/** Moves itself into the cgroup $0, then becomes the rest: a cgroup namespace begins where its maker is. */
const JOIN = ["bash", "--norc", "-c", 'echo 0 > "$0/cgroup.procs" && exec "$@"'] as const;

/**
 * pid 1 of the node: reaps orphans, and ends (taking the node with it) when our end of stdin closes. $1 is
 * the sandbox's directory, $2 where cgroup2 is mounted, $3 "yes" for a bpffs. The machine's mounts of
 * both kinds go: the node's hierarchy begins at its own cgroup, as on a node that is a container (kind).
 */
const INIT = `
set -e
umount -l "$2"
mount -t cgroup2 cgroup2 "$2"
mkdir -p "$2/system/init"
echo 0 > "$2/system/init/cgroup.procs"
while read -r _ _ _ _ point rest; do
  case "$rest" in *" - bpf "*) umount -l "$point";; esac
done < /proc/self/mountinfo
[ "$3" != yes ] || mount -t bpf -o mode=700 bpf /sys/fs/bpf
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/istio-cni /run/ztunnel
mount --bind /run/netns /run/netns
mount --make-shared /run/netns
mount --bind "$1/run/istio-cni" /run/istio-cni
mount --bind "$1/run/ztunnel" /run/ztunnel
ip link set lo up
echo ready
while read -r _; do :; done
`;

export interface NodeOptions {
  /** False: nothing is mounted at /sys/fs/bpf, as on some minimal hosts. */
  readonly bpffs?: boolean;
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
    for (const sub of ["run/istio-cni", "run/ztunnel", "opt/cni/bin", "etc/cni/net.d", "root", "secrets"]) {
      mkdirSync(join(this.dir, sub), { recursive: true });
    }
    this.cgroups = new CgroupTree(name);
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

  /** @throws Error with what the kernel or the shell said when namespaces can't be made. */
  async start(): Promise<void> {
    this.cgroups.create();
    const namespaces = ["--pid", "--mount", "--net", "--uts", "--cgroup"];
    const argv = [...JOIN, this.cgroups.root, "unshare", "--fork", ...namespaces, "--kill-child=KILL", "--mount-proc"];
    const bpffs = this.options.bpffs === false ? "no" : "yes";
    this.init = new Child([...argv, "bash", "--norc", "-c", INIT, "init", this.dir, cgroup2Root(), bpffs], {
      stdio: ["pipe", "pipe", "pipe"],
    });
    await firstLine(this.init, "ready");
    this.initPid = this.init.leafPid();
  }

  /** The command line that runs `argv` in the node's namespaces, with `cgroup` also in that cgroup. */
  enter(argv: readonly string[], cgroup?: string): string[] {
    const enter = ["nsenter", `--target=${this.initPid}`, "--mount", "--net", "--pid", "--uts"];
    // Joined by its path on the machine, before the mount namespace changes.
    return cgroup === undefined ? [...enter, "--", ...argv] : [...JOIN, cgroup, ...enter, "--cgroup", "--", ...argv];
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
  }

  /** Removes the node's cgroups and files, once it is killed. */
  async remove(): Promise<void> {
    await this.cgroups.remove();
    rmSync(this.dir, { recursive: true, force: true });
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
    await new CgroupTree(name).remove();
    rmSync(join(tmpdir(), name), { recursive: true, force: true });
  }
}
