// SPDX-License-Identifier: Apache-2.0
import { AgentError, messageOf } from "../core/errors.ts";
import type { CaptureSpec } from "../core/ports/dataplane.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { Logger } from "../core/ports/telemetry.ts";
import type { NativeBinding } from "../native/binding.ts";
import type { Engine, EngineState } from "./engine.ts";
import type { Legs } from "./netfilter/mode.ts";
import type { Preparation } from "./preparation.ts";
import type { Presence } from "./presence.ts";
import { removeRouting } from "./routes.ts";
import { unneededFamilies, wrongState } from "./routing-state.ts";
import type { Takeover } from "./upstream/takeover.ts";
import type { UpstreamTraces } from "./upstream/traces.ts";
import type { UpstreamRules } from "./upstream/upstream.ts";

export interface CaptureParts {
  readonly binding: NativeBinding;
  readonly logger: Logger;
  readonly presence: Presence;
  readonly preparation: Preparation;
  readonly upstream: UpstreamRules;
  readonly takeover: Takeover;
  /** Removes everything of ours. */
  readonly release: (netns: NetnsHandle) => Promise<void>;
}

export interface CaptureMode {
  /** Nothing of ours is in the netns. */
  readonly fresh: boolean;
  /** It was captured before, by whomever: it stays so whatever fails. */
  readonly keep: boolean;
}

/** What captured a pod before the engine that does now. */
export interface Superseded {
  readonly engines: readonly Engine[];
  readonly upstream: UpstreamTraces | undefined;
}

/** Has one engine capture a pod, whatever captured it before, and proves it. */
export class Capture {
  constructor(private readonly parts: CaptureParts) {}

  /**
   * Undone when it fails. What captured the pod before is untouched: `supersede` is next, where there was anything.
   * @throws AgentError of the step that failed
   */
  async by(
    engine: Engine,
    netns: NetnsHandle,
    spec: CaptureSpec,
    { fresh, keep }: CaptureMode,
  ): Promise<Superseded | undefined> {
    const { binding, presence, preparation, upstream: rules, takeover } = this.parts;
    // What the caller prepared is the caller's to undo; what went missing since shows below.
    const prepared = fresh ? preparation.of(netns) : undefined;
    const undo = preparation.of(netns) !== undefined ? () => engine.remove(netns) : () => this.parts.release(netns);
    const present = fresh ? [] : presence.of(netns);
    const had = present.includes(engine);
    const others = present.filter((other) => other !== engine);
    const upstream = prepared === undefined ? rules.traces(netns.fd) : undefined;
    let unprepared: unknown;
    // Another engine than the one that it was prepared for may need more.
    if (prepared?.translates !== engine.translates) {
      try {
        engine.plan(spec);
        preparation.prepare(netns, spec, engine);
      } catch (error) {
        // Steering without its routes refuses connections; without steering they would leave in the clear.
        if (!keep) throw error;
        unprepared = error;
      }
    }
    try {
      const sysctls = preparation.letters(netns);
      const beside = others.length > 0 || upstream !== undefined;
      const legs = prepared === undefined ? takeover.legs(netns, engine, upstream) : "own";
      const steers =
        had && engine.observe(netns, spec).mode === "captured" && isKept(engine.state(netns), sysctls, legs);
      if (!steers) {
        await takeover.begin(netns, engine, upstream);
        await engine.apply(netns, spec, { sysctls, beside, legs });
      }
      if (unprepared !== undefined) throw unprepared;
      await engine.verify(netns, spec);
      // What was just prepared and applied was acknowledged by the kernel step by step, and proved by verify.
      if (prepared === undefined) {
        removeRouting(binding, netns.fd, unneededFamilies(binding, netns, spec));
        const after = engine.observe(netns, spec);
        const differences = [...after.differences, ...wrongState(binding, netns, spec, engine)];
        if (after.mode !== "captured" || differences.length > 0) {
          throw new AgentError("CAPTURE_DIFFERS", `${spec.pod} is not captured as asked: ${differences.join("; ")}`);
        }
      }
    } catch (error) {
      // A pod that was captured before stays so, whatever its state looks like: it fails closed.
      if (fresh) await this.#undone(undo, spec);
      else if (!had && (present.length > 0 || upstream?.steers)) await this.#undone(() => engine.remove(netns), spec);
      throw error;
    }
    preparation.forget(netns);
    return prepared === undefined ? { engines: others, upstream } : undefined;
  }

  /**
   * The engine that has just proved its capture is the only one that steers. Nothing is undone when it fails, and
   * no other engine is an answer to that: half of what was before captures nobody. Done again, it goes on.
   * @throws AgentError of the step that failed
   */
  async supersede(
    engine: Engine,
    netns: NetnsHandle,
    spec: CaptureSpec,
    { engines, upstream }: Superseded,
  ): Promise<void> {
    const { presence, takeover } = this.parts;
    await presence.retire(engines, netns, spec);
    const gone = await takeover.proceed(netns, engine, upstream);
    if (gone && presence.of(netns).every((one) => one === engine)) engine.alone?.(netns, spec);
  }

  async #undone(undo: () => Promise<void>, spec: CaptureSpec): Promise<void> {
    try {
      await undo();
    } catch (error) {
      this.parts.logger.error("capture failed and can't be undone", { pod: spec.pod, reason: messageOf(error) });
    }
  }
}

function isKept(state: EngineState | undefined, sysctls: string, legs: Legs): boolean {
  return state?.sysctls === sysctls && (state.legs ?? legs) === legs;
}
