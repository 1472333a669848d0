// SPDX-License-Identifier: Apache-2.0
import { AgentError } from "../../../../src/core/errors.ts";
import type { Pod } from "../../../../src/core/pod.ts";
import type { NetnsFinder, NetnsHandle } from "../../../../src/core/ports/netns.ts";
import type { FakeDataplane } from "../../../fakes/parts.ts";
import type { Chance } from "./chance.ts";

/** Network namespaces of the node: they outlive agents, and their inodes are used again once nobody holds them. */
export class Sandboxes {
  /** By pod uid: what /proc shows. */
  readonly inhabited = new Map<string, string>();
  private readonly emptied = new Set<string>();
  private readonly gone = new Set<string>();
  private readonly ofFd = new Map<number, string>();
  private nextFd = 10;
  private nextNetns = 1;

  /** `isHeld`: whether some process has it open. */
  constructor(
    private readonly kernel: FakeDataplane["kernel"],
    private readonly chance: Chance,
    private readonly isHeld: (netns: string) => boolean,
  ) {}

  create(): string {
    for (const netns of this.gone) {
      if (this.isHeld(netns) || this.chance.is(0.3)) continue;
      this.gone.delete(netns);
      this.emptied.delete(netns);
      this.kernel.delete(netns);
      return netns;
    }
    this.nextNetns += 1;
    return `/ns/${this.nextNetns}`;
  }

  drop(netns: string): void {
    this.emptied.add(netns);
    this.gone.add(netns);
    if (!this.isHeld(netns)) this.kernel.delete(netns);
  }

  /** As an fd's receiver sees it. */
  behind(fd: number): string {
    return this.ofFd.get(fd) ?? "closed";
  }

  /** What an agent finds, and holds as long as it lives; `slowly` takes the time that /proc takes. */
  finder(held: Set<OpenNetns>, slowly: () => Promise<void>): NetnsFinder {
    const open = (netns: string) => {
      this.nextFd += 1;
      this.ofFd.set(this.nextFd, netns);
      return new OpenNetns(netns, this.nextFd, held);
    };
    return {
      find: async (pods: readonly Pod[]) => {
        await slowly();
        const found = new Map<string, NetnsHandle>();
        for (const { uid } of pods) {
          const netns = this.inhabited.get(uid);
          if (netns !== undefined) found.set(uid, open(netns));
        }
        await slowly();
        return found;
      },
      open: (path) => {
        if (this.gone.has(path)) throw new AgentError("NETNS_PATH_INVALID", `no netns: ${path}`);
        return open(path);
      },
      missing: ({ id }, ips) => (this.emptied.has(id) ? ips : []),
      inhabited: async () => {
        await slowly();
        return new Set(this.inhabited.values());
      },
      host: () => open("host"),
    };
  }
}

export class OpenNetns implements NetnsHandle {
  private open = true;

  constructor(
    readonly id: string,
    private readonly number: number,
    private readonly all: Set<OpenNetns>,
  ) {
    all.add(this);
  }

  get fd(): number {
    if (!this.open) throw new Error("a netns is used after its end");
    return this.number;
  }

  close(): void {
    this.open = false;
    this.all.delete(this);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
