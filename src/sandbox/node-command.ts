// SPDX-License-Identifier: Apache-2.0
import { buffer } from "node:stream/consumers";
import type { SandboxNode } from "./node.ts";

export interface CommandOutcome {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

const TIMEOUT_MS = 30_000;
/** One GET, by a shell that is there on every machine. $0 = address, $1 = port. */
const GET = `exec 3<>"/dev/tcp/$0/$1"; printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3`;

/**
 * Runs `ambient-cni` on a node as its owner would, with the directories of the sandbox's node in place of the
 * machine's /etc/cni and /opt/cni. Status 124 when it had to be stopped.
 */
export function nodeCommand(node: SandboxNode, program: string, args: readonly string[]): Promise<CommandOutcome> {
  return onNode(node, [process.execPath, program, ...args]);
}

/** Settings by which the command line finds the sandbox's node. */
export function directoriesOf(node: SandboxNode): Record<string, string> {
  return {
    MOUNTED_CNI_NET_DIR: node.path("etc/cni/net.d"),
    AMBIENT_CNI_BIN_DIR: node.path("opt/cni/bin"),
  };
}

/** HTTP GET /healthz as kubelet does it: by a process of the node itself. @throws Error with what the shell said */
export async function probe(node: SandboxNode, address: string, port: number): Promise<string> {
  const { status, stdout, stderr } = await onNode(node, ["bash", "--norc", "-c", GET, address, String(port)]);
  if (status !== 0) throw new Error(stderr.trim());
  const [head = "", body = ""] = stdout.split("\r\n\r\n");
  if (!/^HTTP\/1\.[01] 200 /.test(head))
    throw new Error(`the probe was answered ${JSON.stringify(head.split("\r\n")[0])}`);
  return body;
}

/** Runs a program beside the node's own: in its cgroup, which tells a node's connections from others. */
async function onNode(node: SandboxNode, argv: readonly string[]): Promise<CommandOutcome> {
  const child = node.spawn(argv, {
    cgroup: `${node.cgroups.root}/system/init`,
    env: { PATH: process.env.PATH ?? "", ...directoriesOf(node) },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const { stdout, stderr } = child.process;
  if (stdout === null || stderr === null) throw new Error("the command has no output");
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child.signal("SIGKILL");
  }, TIMEOUT_MS);
  const [out, err, { code }] = await Promise.all([buffer(stdout), buffer(stderr), child.exited]);
  clearTimeout(timer);
  return { status: late ? 124 : (code ?? 1), stdout: out.toString(), stderr: err.toString() };
}
