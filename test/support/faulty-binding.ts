// SPDX-License-Identifier: Apache-2.0
// Faults between an agent and the kernel, within this process. Killed: from one write on all of them fail, those
// that would undo the ones before too. Refused: one fails, and what follows from that is the agent's to decide.
import type { NativeBinding, SpawnOptions } from "../../src/native/binding.ts";
import type { BpfNode } from "../../src/native/bpf.ts";
import { native } from "../../src/native/load.ts";

/** What changes something that outlives the process. */
const WRITES: ReadonlySet<PropertyKey> = new Set<keyof NativeBinding>([
  "sysctlSet",
  "ruleAdd",
  "ruleDelete",
  "routeReplace",
  "routeDelete",
  "addressAdd",
  "addressDelete",
  "nftDelete",
  "ipsetDestroy",
  "bpfFilterDetach",
  "bpfRemove",
]);

const BPF_WRITES: ReadonlySet<PropertyKey> = new Set<keyof BpfNode>([
  "linkCgroup",
  "linkNetns",
  "unpin",
  "tcAttach",
  "podWrite",
  "podFlags",
  "podDelete",
  "erase",
  "adoptListeners",
  "stateWrite",
  "ztunnelsWrite",
]);

export type Fault = "killed" | "refused";

/** Of one agent. */
export class Faults {
  #fault: Fault = "killed";
  #left = Number.POSITIVE_INFINITY;
  #unmade: string | undefined;

  /** What iptables-restore writes at once: all that it is given, or each table, which it commits for itself. */
  constructor(private readonly unit: "text" | "table" = "text") {}

  /** The addon's, as this agent has it. */
  binding(): NativeBinding {
    return this.#faulty(native(), WRITES, (name, call) =>
      name === "bpfOpen" ? (...given) => this.#faulty(call(...given) as BpfNode, BPF_WRITES, (_, read) => read) : call,
    );
  }

  /**
   * Does something of the agent's with a fault after so many writes; a program that it runs is one. Returns the
   * write that was not made, undefined when there were no more than that.
   */
  async during(fault: Fault, writes: number, doing: () => Promise<unknown>): Promise<string | undefined> {
    const { spawn } = native();
    this.#fault = fault;
    this.#left = writes;
    this.#unmade = undefined;
    // Programs are run by whoever wants one, and not by the agent's binding.
    Object.defineProperty(native(), "spawn", { ...SLOT, value: this.#spawn(spawn) });
    try {
      await doing().catch(() => undefined);
    } finally {
      Object.defineProperty(native(), "spawn", { ...SLOT, value: spawn });
      this.#left = Number.POSITIVE_INFINITY;
    }
    return this.#unmade;
  }

  #faulty<T extends object>(whole: T, writes: ReadonlySet<PropertyKey>, read: (name: PropertyKey, call: Call) => Call) {
    return new Proxy(whole, {
      get: (target, name) => {
        const value: unknown = Reflect.get(target, name, target);
        if (typeof value !== "function") return value;
        const call: Call = value.bind(target);
        return writes.has(name) ? this.#write(String(name), call) : read(name, call);
      },
    });
  }

  #write(name: string, call: Call): Call {
    return (...given) => {
      this.#count(name);
      return call(...given);
    };
  }

  /** @throws Error instead of the write that is not to be made. */
  #count(name: string): void {
    if (this.#left === 0) {
      this.#unmade ??= name;
      if (this.#fault === "refused") this.#left = Number.POSITIVE_INFINITY;
      throw new Error(`${name} is refused`);
    }
    this.#left -= 1;
  }

  /** A program makes one write, but for iptables-restore where that counts by `table`. */
  #spawn(spawn: NativeBinding["spawn"]): NativeBinding["spawn"] {
    return async (netns, options) => {
      const made: string[] = [];
      for (const table of this.unit === "table" ? tablesOf(options) : [""]) {
        try {
          this.#count("spawn");
        } catch (error) {
          if (made.length > 0) await spawn(netns, { ...options, stdin: Buffer.from(made.join("")) });
          throw error;
        }
        made.push(table);
      }
      return spawn(netns, options);
    };
  }
}

function tablesOf({ argv: [program = ""], stdin }: SpawnOptions): readonly string[] {
  const text = program.endsWith("-restore") ? String(stdin) : "";
  return text.match(/^\*.*?^COMMIT$\n?/gms) ?? [""];
}

type Call = (...given: unknown[]) => unknown;

const SLOT = { configurable: true, enumerable: true, writable: true };
