// SPDX-License-Identifier: Apache-2.0
import type { ZtunnelPeer, ZtunnelProcesses } from "../core/ports/ztunnel.ts";
import { hostPidOf, ztunnelPids } from "../sys/peer.ts";
import { Proc } from "../sys/proc.ts";

/** Of task_struct's states: T stopped by a signal, t by a debugger. */
const STOPPED = ["T", "t"];
/** One, its successor, and those that are on their way out: more are not remembered. */
const MAX_PROCESSES = 16;

interface Known {
  readonly pid: number;
  /** Tells it from a later process of the same pid. */
  readonly startTime: bigint;
}

/** Processes of ztunnels in the node's /proc. One that loses its connection, since it answers nothing, is still there. */
export class PeerProcesses implements ZtunnelProcesses {
  readonly #proc: Proc;
  #known: Known[] = [];

  constructor(private readonly procDir: string) {
    this.#proc = new Proc(procDir);
  }

  met({ pidfd }: ZtunnelPeer): void {
    // Before 6.5 the kernel does not tell: those that call themselves so are looked at.
    const own = pidfd >= 0 ? hostPidOf(pidfd, this.procDir) : undefined;
    const pids = pidfd >= 0 ? (own === undefined ? [] : [own]) : ztunnelPids(this.#proc);
    const met = pids.flatMap((pid) => {
      const stat = this.#stat(pid);
      return stat === undefined ? [] : [{ pid, startTime: stat.startTime }];
    });
    const others = this.#known.filter(({ pid }) => !pids.includes(pid));
    this.#known = [...others, ...met].slice(-MAX_PROCESSES);
  }

  stopped(): readonly number[] {
    const living = this.#known.flatMap((known) => {
      const stat = this.#stat(known.pid);
      return stat === undefined || stat.startTime !== known.startTime || stat.state === "Z" ? [] : [{ known, stat }];
    });
    this.#known = living.map(({ known }) => known);
    return living.filter(({ stat }) => STOPPED.includes(stat.state)).map(({ known }) => known.pid);
  }

  #stat(pid: number) {
    try {
      return this.#proc.stat(String(pid));
    } catch {
      return undefined;
    }
  }
}
