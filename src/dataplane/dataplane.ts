// SPDX-License-Identifier: Apache-2.0
import { type Clock, systemClock } from "../core/clock.ts";
import type { Config } from "../core/config/config.ts";
import type { Stop } from "../core/disposable.ts";
import { AgentError, messageOf } from "../core/errors.ts";
import type {
  CaptureSpec,
  Dataplane,
  EngineName,
  EngineTest,
  Examination,
  Logger,
  Metrics,
  NetnsHandle,
  NetnsId,
  Observation,
  ZtunnelPeer,
} from "../core/ports.ts";
import type { NativeBinding } from "../native/binding.ts";
import { Assignment, type Fallback, notCapturable } from "./assignment.ts";
import { chooseEngines, testEngines } from "./choose.ts";
import type { Engine } from "./engine.ts";
import { kernelFacts } from "./examine.ts";
import { proxiedSockets, steeredSockets } from "./proxied.ts";
import { addRouting, removeRouting, routingPresent } from "./routes.ts";
import { familiesOf, familyObstacle, unneededFamilies, wrongState } from "./routing-state.ts";
import { ALL_LETTERS, restoreSysctls, setSysctls } from "./sysctls.ts";
import { upstreamPresent } from "./upstream.ts";
import { watchNetns } from "./watch.ts";

export interface DataplaneOptions {
  readonly binding: NativeBinding;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly config: Pick<Config, "engine">;
  /** Every engine that this version has; see engines.ts. */
  readonly engines: readonly Engine[];
  readonly clock?: Clock;
}

interface Prepared {
  /** Letters of what was changed. */
  readonly sysctls: string;
  /** Nothing of ours was in the netns before. */
  readonly untouched: boolean;
}

const ABSENT: Observation = { mode: "absent", engine: undefined, differences: [] };

/** Steers pods' traffic with the best engine that works on this node, and that works for the pod. */
export class NodeDataplane implements Dataplane {
  readonly #engines: readonly Engine[];
  #tests: readonly EngineTest[] = [];
  #assignment: Assignment | undefined;
  /** What `prepare` did, until `capture` has written it beside the steering. */
  readonly #prepared = new WeakMap<NetnsHandle, Prepared>();

  constructor(private readonly options: DataplaneOptions) {
    this.#engines = options.engines;
  }

  get engine(): EngineName {
    return this.#assigned.first.name;
  }

  engineFor(netns: NetnsHandle, spec: CaptureSpec): EngineName {
    return this.#assigned.best(netns, spec).name;
  }

  get tests(): readonly EngineTest[] {
    return this.#tests;
  }

  async start(): Promise<readonly EngineTest[]> {
    const { config, logger, metrics } = this.options;
    this.#tests = await testEngines(this.#engines);
    this.#assignment = new Assignment(chooseEngines(this.#engines, this.#tests, config.engine), logger, metrics);
    return this.#tests;
  }

  observe(netns: NetnsHandle, spec: CaptureSpec): Observation {
    const steering = this.#steering(netns, spec);
    if (steering === undefined) return ABSENT;
    const { engine, observation } = steering;
    if (observation.mode === "draining" || observation.mode === "absent") return observation;
    const differences = [
      ...observation.differences,
      ...wrongState(this.options.binding, netns, spec, engine.needsSysctls),
    ];
    const fallbacks: Fallback[] = [];
    const { value: best } = this.#assigned.candidates(netns, spec, fallbacks).next();
    if (best === undefined) differences.push(notCapturable(spec, fallbacks).message);
    else if (engine !== best) differences.push(`the engine is ${engine.name}, not ${best.name}`);
    for (const retired of this.#idle(netns, engine)) differences.push(`engine ${retired.name} is not needed any more`);
    return differences.length === 0 ? observation : { mode: "differs", engine: engine.name, differences };
  }

  present(netns: NetnsHandle): boolean {
    return this.#present(netns).length > 0 || this.#routingIsOurs(netns);
  }

  examine(netns: NetnsHandle, spec: CaptureSpec | undefined): Examination {
    const observation = spec === undefined ? undefined : this.observe(netns, spec);
    const present = this.#present(netns);
    return {
      facts: [
        ...kernelFacts(this.options.binding, netns, spec, observation),
        ...(spec === undefined
          ? present.map(({ name }) => ({ name: "capture", ok: false, text: `${name} is there` }))
          : []),
      ],
      counters: Object.assign({}, ...present.map((engine) => engine.counters?.(netns) ?? {})),
    };
  }

  async prepare(netns: NetnsHandle, spec: CaptureSpec): Promise<void> {
    const { binding } = this.options;
    const engine = this.#assigned.best(netns, spec);
    // Refuses a bad value before anything is touched.
    engine.plan(spec);
    // Before any sysctl: after a kill, the rule is all that tells whose they are. Where no rule was there,
    // nothing else of ours was either: it is written first and removed last.
    const wanted = familiesOf(binding, netns, spec);
    const added = addRouting(binding, netns.fd, wanted);
    const untouched = added.length === wanted.length && !this.#prepared.has(netns);
    const letters = untouched ? "" : this.#letters(netns);
    const { changed, failures } = setSysctls(binding, netns.fd);
    const refused = failures.filter(({ required }) => required);
    if (refused.length > 0 && engine.needsSysctls) {
      restoreSysctls(binding, netns.fd, changed);
      removeRouting(binding, netns.fd, added);
      throw new AgentError(
        "SYSCTL_DENIED",
        `sysctls of ${spec.pod} can't be set, though the self-test could: ${refused.map(({ key, reason }) => `${key}: ${reason}`).join(", ")}`,
      );
    }
    this.#prepared.set(netns, { sysctls: merged(letters, changed), untouched });
  }

  async capture(netns: NetnsHandle, spec: CaptureSpec, keep = false): Promise<EngineName> {
    const untouched = !keep && this.#prepared.get(netns)?.untouched === true;
    const before = untouched ? ABSENT : this.observe(netns, spec);
    if (before.mode === "captured") return before.engine ?? this.engine;
    const obstacle = familyObstacle(this.options.binding, netns, spec);
    if (obstacle !== undefined) {
      throw new AgentError("POD_NOT_CAPTURABLE", `${spec.pod} can't be captured: ${obstacle}`);
    }
    for (const engine of this.#engines) {
      const reason = engine.unreachable?.(netns);
      if (reason !== undefined) throw new AgentError("ENGINE_UNREACHABLE", `${spec.pod} ${reason}`);
    }
    const fallbacks: Fallback[] = [];
    let failure: unknown;
    for (const engine of this.#assigned.candidates(netns, spec, fallbacks)) {
      try {
        await this.#captureWith(engine, netns, spec, before.mode === "absent" && !keep, keep);
        this.#assigned.assign(netns, spec, engine, fallbacks);
        return engine.name;
      } catch (error) {
        failure = error;
        fallbacks.push({ engine: engine.name, kind: "failed", reason: messageOf(error) });
      }
    }
    if (failure === undefined) throw notCapturable(spec, fallbacks);
    throw failure;
  }

  async drain(netns: NetnsHandle, spec: CaptureSpec): Promise<void> {
    for (const engine of this.#present(netns)) await engine.drain(netns, spec);
  }

  meet(ztunnel: ZtunnelPeer): void {
    this.#tell("a ztunnel has come", (engine) => engine.meet?.(ztunnel));
  }

  listenersOpened(netns: NetnsHandle): void {
    this.#tell("ztunnel's listeners have changed", (engine) => engine.listenersOpened?.(netns));
  }

  proxiedConnections(netns: NetnsHandle): number {
    return proxiedSockets(this.options.binding, netns.fd).length;
  }

  /** By the nftables engine's rules, which upstream's work beside. */
  async handOver(netns: NetnsHandle, spec: CaptureSpec): Promise<void> {
    const netfilter = this.#engines.find(({ name }) => name === "nftables");
    if (netfilter === undefined) throw new AgentError("NO_ENGINE", "there is no nftables engine to hand over with");
    await this.#captureWith(netfilter, netns, spec, false, true);
  }

  async release(netns: NetnsHandle): Promise<void> {
    const { binding } = this.options;
    const letters = this.#letters(netns);
    for (const engine of this.#engines) await engine.remove(netns);
    this.#prepared.delete(netns);
    restoreSysctls(binding, netns.fd, letters);
    // Last: after a kill, the rule tells that the sysctls are still to be restored.
    if (!upstreamPresent(binding, netns.fd)) removeRouting(binding, netns.fd);
  }

  watch(netns: NetnsHandle, changed: () => void): Stop {
    const { binding, clock = systemClock } = this.options;
    return watchNetns(binding, clock, netns.fd, changed);
  }

  collect(): void {
    this.#tell("pods may be gone", (engine) => engine.collect?.());
  }

  vacate(inUse: ReadonlySet<NetnsId>): readonly string[] {
    const kept: string[] = [];
    this.#tell("no agent of ours follows", (engine) => {
      const reason = engine.vacate?.(inUse);
      if (reason !== undefined) kept.push(reason);
    });
    return kept;
  }

  /** Gives back what the process holds; pods stay captured. */
  close(): void {
    for (const engine of this.#engines) engine.close();
  }

  #tell(news: string, tell: (engine: Engine) => void): void {
    for (const engine of this.#engines) {
      try {
        tell(engine);
      } catch (error) {
        const reason = messageOf(error);
        this.options.logger.error("an engine can't act on news", { engine: engine.name, news, reason });
      }
    }
  }

  get #assigned(): Assignment {
    if (this.#assignment === undefined) throw new AgentError("NO_ENGINE", "the dataplane has not been started");
    return this.#assignment;
  }

  async #captureWith(
    engine: Engine,
    netns: NetnsHandle,
    spec: CaptureSpec,
    fresh: boolean,
    keep: boolean,
  ): Promise<void> {
    // What the caller prepared is the caller's to undo; what went missing since shows below.
    const prepared = fresh ? this.#prepared.get(netns)?.sysctls : undefined;
    const undo = this.#prepared.has(netns) ? () => engine.remove(netns) : () => this.release(netns);
    const present = fresh ? [] : this.#present(netns);
    const had = present.includes(engine);
    const others = present.filter((other) => other !== engine);
    let unprepared: unknown;
    if (prepared === undefined) {
      try {
        await this.prepare(netns, spec);
      } catch (error) {
        // Steering without its routes refuses connections; without steering they would leave in the clear.
        if (!keep) throw error;
        unprepared = error;
      }
    }
    try {
      const sysctls = prepared ?? this.#letters(netns);
      const steers = had && engine.observe(netns, spec).mode === "captured" && engine.state(netns)?.sysctls === sysctls;
      if (!steers) await engine.apply(netns, spec, { sysctls, beside: others.length > 0 });
      if (unprepared !== undefined) throw unprepared;
      await engine.verify(netns, spec);
      // What was just prepared and applied was acknowledged by the kernel step by step, and proved by verify.
      if (prepared === undefined) {
        await this.#retire(others, netns, spec);
        if (this.#present(netns).every((one) => one === engine)) engine.alone?.(netns, spec);
        removeRouting(this.options.binding, netns.fd, unneededFamilies(this.options.binding, netns, spec));
        const after = engine.observe(netns, spec);
        const differences = [
          ...after.differences,
          ...wrongState(this.options.binding, netns, spec, engine.needsSysctls),
        ];
        if (after.mode !== "captured" || differences.length > 0) {
          throw new AgentError("CAPTURE_DIFFERS", `${spec.pod} is not captured as asked: ${differences.join("; ")}`);
        }
      }
    } catch (error) {
      // A pod that was captured before stays so, whatever its state looks like: it fails closed.
      if (fresh) await this.#undone(undo, spec);
      else if (!had && present.length > 0) await this.#undone(() => engine.remove(netns), spec);
      throw error;
    }
    this.#prepared.delete(netns);
  }

  /** One engine steers a pod; what another one steered before goes on until it has ended. */
  async #retire(others: readonly Engine[], netns: NetnsHandle, spec: CaptureSpec): Promise<void> {
    for (const other of others) {
      if (this.#isIdle(netns, other)) await other.remove(netns);
      else if (other.observe(netns, spec).mode !== "draining") await other.retire(netns, spec);
    }
  }

  #idle(netns: NetnsHandle, engine: Engine): Engine[] {
    return this.#present(netns).filter((other) => other !== engine && this.#isIdle(netns, other));
  }

  #isIdle(netns: NetnsHandle, engine: Engine): boolean {
    return engine.keepsAlive(steeredSockets(this.options.binding, netns.fd)) === 0;
  }

  #present(netns: NetnsHandle): Engine[] {
    return this.#engines.filter((engine) => engine.present(netns));
  }

  /** The engine that steers new connections, else one whose connections go on. */
  #steering(
    netns: NetnsHandle,
    spec: CaptureSpec,
  ): { readonly engine: Engine; readonly observation: Observation } | undefined {
    const all = this.#present(netns).map((engine) => ({ engine, observation: engine.observe(netns, spec) }));
    const active = all.filter(({ observation }) => observation.mode !== "draining");
    return active.find(({ observation }) => observation.mode === "captured") ?? active[0] ?? all[0];
  }

  /**
   * Letters of the sysctls that we have changed in this netns. Routing of ours without anything else
   * was left by an agent that died between prepare and capture: then all of them are taken for ours.
   */
  #letters(netns: NetnsHandle): string {
    const kept = this.#present(netns)
      .map((engine) => engine.state(netns)?.sysctls)
      .find((letters) => letters !== undefined);
    return kept ?? this.#prepared.get(netns)?.sysctls ?? (this.#routingIsOurs(netns) ? ALL_LETTERS : "");
  }

  #routingIsOurs(netns: NetnsHandle): boolean {
    const { binding } = this.options;
    return routingPresent(binding, netns.fd) && !upstreamPresent(binding, netns.fd);
  }

  async #undone(undo: () => Promise<void>, spec: CaptureSpec): Promise<void> {
    try {
      await undo();
    } catch (error) {
      this.options.logger.error("capture failed and can't be undone", { pod: spec.pod, reason: messageOf(error) });
    }
  }
}

function merged(a: string, b: string): string {
  return [...new Set(a + b)].sort().join("");
}
