// SPDX-License-Identifier: Apache-2.0
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { CAPABILITY_SET } from "../../src/sandbox/jail.ts";
import { directoriesOf } from "../../src/sandbox/node-command.ts";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import { PROGRAM } from "./sandbox.ts";

export interface CliResult {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly milliseconds: number;
}

/** Runs the command line on the sandbox's node, as its owner would. */
export function onNode(sandbox: Sandbox, ...args: readonly string[]): Promise<CliResult> {
  return executeOnNode(sandbox, [process.execPath, PROGRAM, ...args]);
}

/** The same from a container that shares nothing with the node but its processes: its /run is another one. */
export function inDebugContainer(sandbox: Sandbox, ...args: readonly string[]): Promise<CliResult> {
  const container = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$@"', "sh"];
  return executeOnNode(sandbox, [...container, process.execPath, PROGRAM, ...args]);
}

/** The same as a user without rights. */
export function asNobody(sandbox: Sandbox, ...args: readonly string[]): Promise<CliResult> {
  const nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
  return executeOnNode(sandbox, [...nobody, process.execPath, PROGRAM, ...args]);
}

export function executeOnNode({ node }: Sandbox, argv: readonly string[]): Promise<CliResult> {
  return execute(node.enter(argv, `${node.cgroups.root}/system/init`), {
    PATH: process.env.PATH ?? "",
    ...directoriesOf(node),
  });
}

/** Runs it in the agent's container, as `kubectl exec` would: its namespaces, capabilities and environment. */
export function inPod(sandbox: Sandbox, ...args: readonly string[]): Promise<CliResult> {
  return inAgentsNamespaces(sandbox, ["--bounding-set", CAPABILITY_SET, "--inh-caps", CAPABILITY_SET], args);
}

/** The same in a container that may do everything, as of our chart with `bpffs.create` or of `kubectl debug`. */
export function inPrivilegedPod(sandbox: Sandbox, ...args: readonly string[]): Promise<CliResult> {
  return inAgentsNamespaces(sandbox, [], args);
}

function inAgentsNamespaces(sandbox: Sandbox, limits: readonly string[], args: readonly string[]): Promise<CliResult> {
  const pid = sandbox.agent?.leafPid();
  if (pid === undefined) throw new Error("no agent runs");
  const environment = readFileSync(`/proc/${pid}/environ`, "utf8")
    .split("\0")
    .filter((line) => line.includes("="))
    .map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]);
  const enter = ["nsenter", `--target=${pid}`, "--mount", "--net", "--pid", "--cgroup", "--"];
  const limit = limits.length === 0 ? [] : ["setpriv", ...limits, "--"];
  return execute([...enter, ...limit, process.execPath, PROGRAM, ...args], Object.fromEntries(environment));
}

function execute([file = "", ...args]: readonly string[], env: Record<string, string>): Promise<CliResult> {
  const began = performance.now();
  return new Promise((resolve, reject) => {
    execFile(file, args, { env, timeout: 30_000, maxBuffer: 64 << 20 }, (error, stdout, stderr) => {
      const milliseconds = performance.now() - began;
      if (error === null) resolve({ status: 0, stdout, stderr, milliseconds });
      else if (typeof error.code === "number") resolve({ status: error.code, stdout, stderr, milliseconds });
      else reject(error);
    });
  });
}
