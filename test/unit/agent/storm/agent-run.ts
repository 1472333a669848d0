// SPDX-License-Identifier: Apache-2.0
import { Agent } from "../../../../src/agent/agent.ts";
import type { Parts } from "../../../../src/agent/parts.ts";
import type { Clock } from "../../../../src/core/clock.ts";
import { AgentError } from "../../../../src/core/errors.ts";
import { DecisionJournal } from "../../../../src/telemetry/journal.ts";
import { ZdsServer } from "../../../../src/zds/server.ts";
import { type FakeParts, noMetrics, silent } from "../../../fakes/parts.ts";
import { FakeBinding } from "../../zds/fake-binding.ts";
import { type Chance, pause } from "./chance.ts";
import type { OpenNetns, Sandboxes } from "./sandboxes.ts";

/** Twenty seconds of an agent are one of the test's. */
const SPEED = 20;
const FAST: Clock = {
  now: () => performance.now() * SPEED,
  after: (ms, task) => {
    const timer = setTimeout(task, ms / SPEED);
    return () => clearTimeout(timer);
  },
};
const SLOW = new Set(["annotate", "readPod", "capture", "prepare", "release", "drain", "allow", "revoke", "settle"]);
const FAILING = 0.05;

/** One life of an agent, with its own ZDS server. Once killed it hears and changes nothing any more. */
export class AgentRun {
  readonly held = new Set<OpenNetns>();
  readonly binding = new FakeBinding();
  readonly agent: Agent;
  readonly parts: Parts;
  alive = true;
  private readonly stops: (() => void)[] = [];

  constructor(
    private readonly world: FakeParts,
    sandboxes: Sandboxes,
    private readonly chance: Chance,
    private readonly faulty: () => boolean,
    socketDir: string,
  ) {
    const path = `${socketDir}/ztunnel.sock`;
    const random = () => chance.number();
    const ztunnel = new ZdsServer({
      path,
      binding: this.binding,
      logger: silent,
      metrics: noMetrics,
      clock: FAST,
      random,
    });
    const { config, sidecars, existing, nameservers, claims, drift, ztunnelProcesses } = world;
    this.parts = {
      ...{ config, sidecars, existing, nameservers, claims, drift, ztunnel, ztunnelProcesses },
      cluster: this.mortal(world.cluster),
      finder: sandboxes.finder(this.held, () => this.whileAlive()),
      dataplane: this.mortal(world.dataplane),
      probes: this.mortal(world.probes),
      publish: () => this.whileAlive(),
      lastAliveAt: undefined,
      decisions: new DecisionJournal(silent),
      logger: silent,
      metrics: noMetrics,
      clock: FAST,
    };
    this.agent = new Agent(this.parts, 3000, { periodMs: 2000, podsEvery: 2 });
  }

  /** As SIGKILL: what was under way has happened or not, and nobody hears of it. */
  kill(): void {
    this.alive = false;
    for (const stop of this.stops) stop();
    this.world.dataplane.watchers.clear();
    for (const netns of this.held) netns.close();
  }

  /** As SIGTERM, and SIGKILL when the grace is over. */
  async end(graceMs: number): Promise<void> {
    await Promise.race([this.agent.stop(), pause(graceMs)]);
    this.kill();
  }

  private async whileAlive(): Promise<void> {
    await this.chance.moment();
    if (!this.alive) await new Promise(() => undefined);
  }

  /** What takes time takes some before it happens and after it; what does not is of no use to the dead. */
  private mortal<T extends object>(part: T): T {
    const slow = async (name: string, call: () => unknown) => {
      await this.whileAlive();
      if (this.faulty() && this.chance.is(FAILING)) throw new AgentError("STORM", `${name} fails`);
      const result = await call();
      await this.whileAlive();
      return result;
    };
    return new Proxy(part, {
      get: (_part, name: string) => {
        const value: unknown = Reflect.get(part, name, part);
        if (typeof value !== "function") return value;
        return (...given: unknown[]) => {
          const call = () => value.apply(part, given);
          if (SLOW.has(name)) return slow(name, call);
          if (!this.alive && name !== "pods" && name !== "namespaces") return undefined;
          const result = call();
          if (name === "onPod" || name === "onNamespace") this.stops.push(result);
          return result;
        };
      },
    });
  }
}
