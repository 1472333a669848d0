// SPDX-License-Identifier: Apache-2.0
import { AgentError, codeOf, messageOf } from "../core/errors.ts";
import type { NetnsHandle, NetnsId } from "../core/ports/netns.ts";
import { type HeldNetns, openNetns } from "../native/netns.ts";
import { Proc } from "../sys/proc.ts";
import { cgroupAncestors, cgroupOwner } from "./cgroup.ts";

/** Programs of the node that always live in its network, for nodes where neither pid 1 nor a kernel thread can be read. */
const NODE_PROGRAMS = new Set([
  "kubelet",
  "containerd",
  "crio",
  "dockerd",
  "k3s-server",
  "k3s-agent",
  "k0s",
  "kubelite",
]);

export interface HostNetns {
  readonly handle: HeldNetns;
  /** Which process it was read from, for `inspect` and the log. */
  readonly source: string;
}

/**
 * Finds the node's own network namespace. With a network shared with the node it is ours. Otherwise
 * that of the node's pid 1, and where that one may not be read (a pid 1 that is more privileged than
 * we are): a kernel thread's, since those live in the initial netns; else a known program of the node
 * outside every container.
 * @throws AgentError HOST_NETNS_UNKNOWN
 */
export function findHostNetns(proc: Proc, sharesNetwork: boolean): HostNetns {
  if (sharesNetwork) return { handle: openNetns(new Proc("/proc").netnsPath("self")), source: "the agent itself" };
  const failures: string[] = [];
  for (const [pid, source] of sources(proc)) {
    try {
      return { handle: openNetns(proc.netnsPath(pid)), source };
    } catch (error) {
      failures.push(`${source}: ${codeOf(error)}`);
    }
  }
  throw new AgentError(
    "HOST_NETNS_UNKNOWN",
    `cannot tell the node's own network namespace in ${proc.dir} (${failures.slice(0, 5).join(", ")})`,
    "the agent needs the node's /proc and CAP_SYS_PTRACE; or run it with the node's network",
  );
}

function* sources(proc: Proc): Generator<[pid: string, source: string]> {
  yield ["1", "pid 1"];
  const ancestors = ancestorsOf(proc);
  const programs: [string, string][] = [];
  for (const pid of proc.pids()) {
    try {
      const { comm, kernelThread } = proc.stat(pid);
      if (kernelThread) yield [pid, `kernel thread ${comm}`];
      // Outside every container: a pod could name its program kubelet.
      else if (NODE_PROGRAMS.has(comm) && cgroupOwner(proc.cgroup(pid), ancestors) === undefined) {
        programs.push([pid, `${comm} (pid ${pid})`]);
      }
    } catch {
      // Gone since the directory was read.
    }
  }
  yield* programs;
}

/**
 * Uids and container ids that the node itself lives in; empty on an ordinary node.
 * @throws AgentError PROC_UNREADABLE: capture does not work without the node's proc
 */
export function ancestorsOf(proc: Proc): ReadonlySet<string> {
  try {
    return cgroupAncestors(proc.cgroup("1"));
  } catch (cause) {
    const message = `cannot read the node's processes in ${proc.dir}: ${messageOf(cause)}`;
    throw new AgentError("PROC_UNREADABLE", message, "mount the node's /proc there, read-only is enough", { cause });
  }
}

/** Identities that are never a pod's: the node's, and the agent's own. */
export function forbiddenIds(host: NetnsHandle, proc: Proc): ReadonlySet<NetnsId> {
  const ids = new Set<NetnsId>([host.id, new Proc("/proc").netnsId("self")]);
  try {
    ids.add(proc.netnsId("1"));
  } catch {
    // Not readable: `host` was found another way then.
  }
  return ids;
}
