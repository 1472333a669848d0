// SPDX-License-Identifier: Apache-2.0

import { type Clock, systemClock } from "../core/clock.ts";
import type { Config } from "../core/config/config.ts";
import type { Stop } from "../core/disposable.ts";
import { AgentError, messageOf } from "../core/errors.ts";
import { familyOf } from "../core/ip.ts";
import type {
  CaptureSpec,
  Dataplane,
  EngineName,
  EngineTest,
  Logger,
  Metrics,
  NetnsHandle,
  Observation,
} from "../core/ports.ts";
import type { NativeBinding } from "../native/binding.ts";
import { chooseEngine, testEngines } from "./choose.ts";
import type { Engine } from "./engine.ts";
import { NftablesEngine } from "./nftables/engine.ts";
import { proxiedSockets } from "./proxied.ts";
import { addRouting, families, missingRouting, needlessRouting, removeRouting, routingPresent } from "./routes.ts";
import { ALL_LETTERS, restoreSysctls, setSysctls, wrongSysctls } from "./sysctls.ts";
import { upstreamPresent } from "./upstream.ts";
import { watchNetns } from "./watch.ts";

export interface DataplaneOptions {
  readonly binding: NativeBinding;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly config: Pick<Config, "engine">;
  /** In tests; by default every engine there is. */
  readonly engines?: readonly Engine[];
  readonly clock?: Clock;
}

/** Steers pods' traffic with the best engine that works on this node. */
export class NodeDataplane implements Dataplane {
  readonly #engines: readonly Engine[];
  #tests: readonly EngineTest[] = [];
  #engine: Engine | undefined;
  /** Sysctls changed by `prepare`, until `capture` has written them beside the steering. */
  readonly #prepared = new WeakMap<NetnsHandle, string>();

  constructor(private readonly options: DataplaneOptions) {
    this.#engines = options.engines ?? [new NftablesEngine(options.binding, options.logger)];
  }

  get engine(): EngineName {
    return this.#chosen.name;
  }

  get tests(): readonly EngineTest[] {
    return this.#tests;
  }

  async start(): Promise<readonly EngineTest[]> {
    this.#tests = await testEngines(this.#engines);
    this.#engine = chooseEngine(this.#engines, this.#tests, this.options.config.engine);
    return this.#tests;
  }

  observe(netns: NetnsHandle, spec: CaptureSpec): Observation {
    const engine = this.#engineOf(netns);
    if (engine === undefined) return { mode: "absent", engine: undefined, differences: [] };
    const observation = engine.observe(netns, spec);
    if (observation.mode === "draining" || observation.mode === "absent") return observation;
    const differences = [...observation.differences, ...this.#wrongState(netns, spec)];
    if (engine !== this.#chosen) differences.push(`the engine is ${engine.name}, not ${this.#chosen.name}`);
    return differences.length === 0 ? observation : { mode: "differs", engine: engine.name, differences };
  }

  present(netns: NetnsHandle): boolean {
    return this.#engineOf(netns) !== undefined || this.#routingIsOurs(netns);
  }

  async prepare(netns: NetnsHandle, spec: CaptureSpec): Promise<void> {
    const { binding } = this.options;
    // Refuses a bad value before anything is touched.
    this.#chosen.plan(spec);
    const letters = this.#letters(netns);
    // Before any sysctl: after a kill, the rule is all that tells whose they are.
    const added = addRouting(binding, netns.fd, families(binding, netns.fd, spec.ipv6));
    const { changed, failures } = setSysctls(binding, netns.fd);
    const refused = failures.filter(({ required }) => required);
    if (refused.length > 0 && this.#chosen.needsSysctls) {
      restoreSysctls(binding, netns.fd, changed);
      removeRouting(binding, netns.fd, added);
      throw new AgentError(
        "SYSCTL_DENIED",
        `sysctls of ${spec.pod} can't be set, though the self-test could: ${refused.map(({ key, reason }) => `${key}: ${reason}`).join(", ")}`,
      );
    }
    this.#prepared.set(netns, merged(letters, changed));
  }

  async capture(netns: NetnsHandle, spec: CaptureSpec, keep = false): Promise<EngineName> {
    const engine = this.#chosen;
    const before = this.observe(netns, spec);
    if (before.mode === "captured") return engine.name;
    const obstacle = this.#familyObstacle(netns, spec) ?? engine.ineligible(netns, spec);
    if (obstacle !== undefined) {
      throw new AgentError("POD_NOT_CAPTURABLE", `${spec.pod} can't be captured: ${obstacle}`);
    }
    // A pod that has been captured before is only ever repaired: it fails closed.
    const fresh = before.mode === "absent" && !keep;
    // What the caller prepared is the caller's to undo; what went missing since shows below.
    const prepared = fresh ? this.#prepared.get(netns) : undefined;
    const undo = this.#prepared.has(netns) ? () => engine.remove(netns) : () => this.release(netns);
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
      const steers =
        before.mode !== "absent" &&
        engine.observe(netns, spec).mode === "captured" &&
        engine.state(netns)?.sysctls === sysctls;
      if (!steers) await engine.apply(netns, spec, { sysctls });
      if (unprepared !== undefined) throw unprepared;
      await engine.verify(netns, spec);
      for (const other of this.#engines) if (other !== engine && other.present(netns)) await other.remove(netns);
      removeRouting(this.options.binding, netns.fd, this.#needless(netns, spec));
    } catch (error) {
      // A pod that was captured before stays so, whatever its table looks like: it fails closed.
      if (fresh) await this.#undone(undo, spec);
      throw error;
    }
    this.#prepared.delete(netns);
    const after = this.observe(netns, spec);
    if (after.mode !== "captured") {
      if (fresh) await this.#undone(undo, spec);
      throw new AgentError("CAPTURE_DIFFERS", `${spec.pod} is not captured as asked: ${after.differences.join("; ")}`);
    }
    return engine.name;
  }

  async drain(netns: NetnsHandle, spec: CaptureSpec): Promise<void> {
    await this.#engineOf(netns)?.drain(netns, spec);
  }

  proxiedConnections(netns: NetnsHandle): number {
    return proxiedSockets(this.options.binding, netns.fd).length;
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

  /** Gives back what the process holds; pods stay captured. */
  close(): void {
    for (const engine of this.#engines) engine.close();
  }

  get #chosen(): Engine {
    if (this.#engine === undefined) throw new AgentError("NO_ENGINE", "the dataplane has not been started");
    return this.#engine;
  }

  #engineOf(netns: NetnsHandle): Engine | undefined {
    return this.#engines.find((engine) => engine.present(netns));
  }

  /** Why nothing that reaches this pod would be captured: rules of a family it has no address of prove nothing. */
  #familyObstacle(netns: NetnsHandle, spec: CaptureSpec): string | undefined {
    const captured = families(this.options.binding, netns.fd, spec.ipv6);
    if (spec.ips.length === 0 || spec.ips.some((ip) => captured.includes(familyOf(ip)))) return undefined;
    const why = spec.ipv6
      ? "net.ipv6.conf.lo.disable_ipv6 is not 0 in its netns, so AMBIENT_IPV6 has no effect there"
      : "AMBIENT_IPV6 is false on this node";
    return `all of its addresses (${spec.ips.join(", ")}) are IPv6, which is not captured: ${why}`;
  }

  /** Routing of ours in a family that is not captured any more. Upstream's is the same, and not ours. */
  #needless(netns: NetnsHandle, spec: CaptureSpec): ReturnType<typeof needlessRouting> {
    const { binding } = this.options;
    const needless = needlessRouting(binding, netns.fd, families(binding, netns.fd, spec.ipv6));
    return needless.length > 0 && upstreamPresent(binding, netns.fd) ? [] : needless;
  }

  #wrongState(netns: NetnsHandle, spec: CaptureSpec): string[] {
    const { binding } = this.options;
    const obstacle = this.#familyObstacle(netns, spec);
    return [
      ...(obstacle === undefined ? [] : [obstacle]),
      ...missingRouting(binding, netns.fd, families(binding, netns.fd, spec.ipv6)),
      ...this.#needless(netns, spec).map((family) => `IPv${family} is not captured, but its policy rule is there`),
      ...(this.#chosen.needsSysctls ? wrongSysctls(binding, netns.fd) : []),
    ];
  }

  /**
   * Letters of the sysctls that we have changed in this netns. Routing of ours without anything else
   * was left by an agent that died between prepare and capture: then all of them are taken for ours.
   */
  #letters(netns: NetnsHandle): string {
    const kept = this.#engineOf(netns)?.state(netns)?.sysctls ?? this.#prepared.get(netns);
    return kept ?? (this.#routingIsOurs(netns) ? ALL_LETTERS : "");
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
