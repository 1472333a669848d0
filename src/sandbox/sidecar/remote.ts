// SPDX-License-Identifier: Apache-2.0
import { createInterface } from "node:readline";
import * as v from "valibot";
import type { Child } from "../../sys/child.ts";
import { SIDECAR_EVENT, type SidecarEvent } from "./options.ts";

const DEADLINE_MS = 20_000;
const LOOK_MS = 100;

/** The sandbox's end of the line to the stand-in for a sidecar: what has come to its listeners. */
export class SidecarRemote {
  readonly events: SidecarEvent[] = [];
  private waiting: (() => void)[] = [];

  constructor(readonly child: Child) {
    const { stdout } = child.process;
    if (stdout === null) throw new Error("the sidecar has no stdout");
    createInterface({ input: stdout }).on("line", (line) => {
      this.events.push(v.parse(SIDECAR_EVENT, JSON.parse(line)));
      this.wake();
    });
    void child.exited.finally(() => this.wake());
  }

  forget(): void {
    this.events.length = 0;
  }

  /** Waits for an event. @throws Error when the sidecar ends, or nothing like it comes. */
  async until(wanted: (event: SidecarEvent) => boolean): Promise<SidecarEvent> {
    const deadline = performance.now() + DEADLINE_MS;
    for (;;) {
      const found = this.events.find(wanted);
      if (found !== undefined) return found;
      if (!this.child.running) throw new Error("the sidecar has ended");
      if (performance.now() > deadline) throw new Error("the sidecar has not seen what was expected");
      await new Promise<void>((resolve) => {
        this.waiting.push(resolve);
        setTimeout(resolve, LOOK_MS);
      });
    }
  }

  private wake(): void {
    for (const wake of this.waiting.splice(0)) wake();
  }
}
