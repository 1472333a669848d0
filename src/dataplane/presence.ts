// SPDX-License-Identifier: Apache-2.0
// Which engines a pod has. One steers; those before it stay until the last connection that lives by them ends.

import type { CaptureSpec, Observation } from "../core/ports/dataplane.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { NativeBinding } from "../native/binding.ts";
import type { Engine } from "./engine.ts";
import { steeredSockets } from "./proxied.ts";
import { mergedLetters } from "./sysctls.ts";

export class Presence {
  constructor(
    private readonly binding: NativeBinding,
    private readonly engines: readonly Engine[],
  ) {}

  of(netns: NetnsHandle): Engine[] {
    return this.engines.filter((engine) => engine.present(netns));
  }

  /** The engine that steers new connections, else one whose connections go on. */
  steering(
    netns: NetnsHandle,
    spec: CaptureSpec,
  ): { readonly engine: Engine; readonly observation: Observation } | undefined {
    const all = this.of(netns);
    const active = all.length === 1 ? all : all.filter((engine) => engine.mode(netns) === "captured");
    const observed = (active.length === 0 ? all : active).map((engine) => ({
      engine,
      observation: engine.observe(netns, spec),
    }));
    return observed.find(({ observation }) => observation.mode === "captured") ?? observed[0];
  }

  /** Those beside `engine` by which no connection lives any more. */
  idleBeside(netns: NetnsHandle, engine: Engine): Engine[] {
    return this.of(netns).filter((other) => other !== engine && this.#isIdle(netns, other));
  }

  /** One engine steers a pod; what another one steered before goes on until it has ended. */
  async retire(others: readonly Engine[], netns: NetnsHandle, spec: CaptureSpec): Promise<void> {
    for (const other of others) {
      if (this.#isIdle(netns, other)) await other.remove(netns);
      else if (other.mode(netns) !== "retiring") await other.retire(netns, spec);
    }
  }

  /** None steers any more. One that drains refuses what another would still redirect: the others retire first. */
  async drain(netns: NetnsHandle, spec: CaptureSpec): Promise<void> {
    const active = this.of(netns).filter((engine) => engine.mode(netns) === "captured");
    for (const other of active.slice(1)) await other.retire(netns, spec);
    await active[0]?.drain(netns, spec);
  }

  /** Letters of the sysctls that were changed, as kept beside the steering: where it is of two engines, both's. */
  sysctls(netns: NetnsHandle): string | undefined {
    const kept = this.of(netns).flatMap((engine) => engine.state(netns)?.sysctls ?? []);
    return kept.length === 0 ? undefined : mergedLetters(...kept);
  }

  #isIdle(netns: NetnsHandle, engine: Engine): boolean {
    return engine.keepsAlive(steeredSockets(this.binding, netns.fd)) === 0;
  }
}
