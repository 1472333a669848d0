// SPDX-License-Identifier: Apache-2.0
import { Proc } from "../../sys/proc.ts";

/** Finds kubelet among the node's processes, by upstream's rules (istio-cni.md 5.4). */
export class Kubelet {
  readonly #proc: Proc;
  #known: { readonly pid: string; readonly startTime: bigint } | undefined;

  /** `procDir`: the node's proc. */
  constructor(procDir: string) {
    this.#proc = new Proc(procDir);
  }

  /** Real uid of kubelet, or undefined when there is none. Remembers the process: no scan while it lives. */
  uid(): number | undefined {
    const known = this.#known;
    if (known !== undefined) {
      const uid = tried(() =>
        this.#proc.stat(known.pid).startTime === known.startTime ? this.#proc.uid(known.pid) : undefined,
      );
      if (uid !== undefined) return uid;
    }
    this.#known = undefined;
    for (const pid of this.#proc.pids()) {
      // A process may end between any two reads.
      const found = tried(() => this.#identify(pid));
      if (found === undefined) continue;
      this.#known = { pid, startTime: found.startTime };
      return found.uid;
    }
    return undefined;
  }

  /** pid of kubelet in the node's /proc, or undefined when there is none. */
  pid(): number | undefined {
    return this.uid() === undefined ? undefined : Number(this.#known?.pid);
  }

  #identify(pid: string): { readonly startTime: bigint; readonly uid: number } | undefined {
    const { comm, startTime } = this.#proc.stat(pid);
    if (comm === "kubelet" || comm === "kubelite") {
      if (!this.#proc.argv(pid).some((argument) => argument.toLowerCase().includes("kubelet"))) return undefined;
    } else if (comm !== "k3s") {
      return undefined;
    }
    return { startTime, uid: this.#proc.uid(pid) };
  }
}

function tried<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
