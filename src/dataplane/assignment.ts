// SPDX-License-Identifier: Apache-2.0
// Which engine a pod gets, and why not a better one.
import { AgentError } from "../core/errors.ts";
import type { CaptureSpec, EngineName, FallbackKind } from "../core/ports/dataplane.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { Logger, Metrics } from "../core/ports/telemetry.ts";
import type { Engine } from "./engine.ts";

export interface Fallback {
  readonly engine: EngineName;
  readonly kind: FallbackKind;
  readonly reason: string;
}

export class Assignment {
  /** Engines that could not capture a pod though they should; not tried again while the netns is held. */
  readonly #failed = new WeakMap<NetnsHandle, Map<EngineName, string>>();
  /** What was said already. */
  readonly #told = new WeakMap<NetnsHandle, string>();

  constructor(
    private readonly engines: readonly [Engine, ...Engine[]],
    private readonly logger: Logger,
    private readonly metrics: Metrics,
  ) {}

  /** The engine that new pods get unless something speaks against it. */
  get first(): Engine {
    return this.engines[0];
  }

  /** Whether any pod may get this engine. */
  knows(engine: Engine): boolean {
    return this.engines.includes(engine);
  }

  /**
   * Engines to try for this pod, best first. What speaks against an engine is added to `fallbacks` when
   * its turn comes: most pods get the first one, and nobody asks the others.
   */
  *candidates(netns: NetnsHandle, spec: CaptureSpec, fallbacks: Fallback[]): Generator<Engine> {
    for (const engine of this.#inOrder(spec)) {
      const failed = this.#failed.get(netns)?.get(engine.name);
      const reason = failed ?? engine.ineligible(netns, spec);
      if (reason === undefined) yield engine;
      else fallbacks.push({ engine: engine.name, kind: failed === undefined ? "ineligible" : "failed", reason });
    }
  }

  /** @throws AgentError POD_NOT_CAPTURABLE with every engine's reason. */
  best(netns: NetnsHandle, spec: CaptureSpec): Engine {
    const fallbacks: Fallback[] = [];
    for (const engine of this.candidates(netns, spec, fallbacks)) return engine;
    throw notCapturable(spec, fallbacks);
  }

  /**
   * A pod got this engine though others were better. What failed is not tried again: only where another
   * engine did better was it the engine's fault. Said once per pod.
   */
  assign(netns: NetnsHandle, spec: CaptureSpec, engine: Engine, fallbacks: readonly Fallback[]): void {
    const failed = fallbacks.filter(({ kind }) => kind === "failed");
    this.#failed.set(netns, new Map(failed.map(({ engine: name, reason }) => [name, reason])));
    const told = JSON.stringify([engine.name, fallbacks]);
    if (this.#told.get(netns) === told) return;
    this.#told.set(netns, told);
    for (const { engine: from, kind, reason } of fallbacks) {
      this.metrics.count("ambient_cni_engine_fallbacks_total", { from, to: engine.name, kind });
      this.logger.info("a pod has another engine than the node's", {
        pod: spec.pod,
        engine: engine.name,
        not: from,
        reason,
      });
    }
  }

  #inOrder(spec: CaptureSpec): readonly Engine[] {
    if (spec.engine === undefined) return this.engines;
    const wanted = this.engines.filter(({ name }) => name === spec.engine);
    return [...wanted, ...this.engines.filter(({ name }) => name !== spec.engine)];
  }
}

/** What a pod's owner is told when no engine takes it. */
export function notCapturable(spec: CaptureSpec, fallbacks: readonly Fallback[]): AgentError {
  const [only, ...more] = fallbacks;
  const reasons =
    only !== undefined && (more.length === 0 || more.every(({ reason }) => reason === only.reason))
      ? only.reason
      : fallbacks.map(({ engine, reason }) => `${engine}: ${reason}`).join("; ");
  return new AgentError("POD_NOT_CAPTURABLE", `${spec.pod} can't be captured: ${reasons}`);
}
