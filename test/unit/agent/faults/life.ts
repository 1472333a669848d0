// SPDX-License-Identifier: Apache-2.0
import { Agent } from "../../../../src/agent/agent.ts";
import type { Parts } from "../../../../src/agent/parts.ts";
import type { Clock } from "../../../../src/core/clock.ts";
import { AgentError } from "../../../../src/core/errors.ts";
import type { NetnsHandle } from "../../../../src/core/ports/netns.ts";
import { DriftLedger } from "../../../../src/telemetry/drift-ledger.ts";
import { DecisionJournal } from "../../../../src/telemetry/journal.ts";
import { ZdsServer } from "../../../../src/zds/server.ts";
import { type FakeParts, noMetrics, silent } from "../../../fakes/parts.ts";
import type { OpenNetns, Sandboxes } from "../storm/sandboxes.ts";
import type { Fate, FaultPoint } from "./fault-point.ts";
import { LateWatch } from "./late-watch.ts";
import type { VirtualClock } from "./virtual-clock.ts";
import { ZtunnelDoor } from "./ztunnel-end.ts";

/** What may fail. Whatever else a port has never throws, or says nothing of the world. */
const FALLIBLE: Readonly<Record<string, readonly string[]>> = {
  cluster: ["annotate", "readPod"],
  finder: ["find", "open", "missing", "inhabited"],
  dataplane: [
    ...["start", "observe", "present", "engineFor", "prepare", "capture", "drain", "release", "handOver"],
    ...["proxiedConnections", "watch", "mendShared"],
  ],
  probes: ["start", "allow", "settle", "revoke", "reconcile", "bequeath"],
  sidecars: ["observe", "redirect"],
  existing: ["protect", "count", "reset"],
  claims: ["read", "write"],
};
/** What no event leads to is found then. */
export const SWEEP_MS = 200_000;
/** Of a call that is late, in ms: longer than anybody waits. */
const LATE_MS = 25_000;
/** What leaves everything as it was when it fails. */
const WHOLE: ReadonlySet<string> = new Set(["find", "open", "watch", "capture"]);

export interface World {
  readonly parts: FakeParts;
  readonly sandboxes: Sandboxes;
  readonly clock: VirtualClock;
  readonly point: FaultPoint;
  readonly socketDir: string;
  readonly lag: () => number;
  /** How long a call takes, in ms; 0: it is over at once. */
  readonly delay: () => number;
  readonly told: (what: string) => void;
  /** Kills the agent that runs. */
  readonly kill: () => void;
  /** After each call. */
  readonly happened: () => void;
}

/** One life of an agent. Once killed it hears and changes nothing any more. */
export class Life {
  readonly held = new Set<OpenNetns>();
  readonly door = new ZtunnelDoor();
  readonly timers = new Set<() => void>();
  readonly agent: Agent;
  readonly died: Promise<void>;
  alive = true;
  started = false;
  private dying: () => void = () => undefined;
  readonly watch: LateWatch;
  /** Watches of netns that are open. */
  watches = 0;

  constructor(private readonly world: World) {
    this.died = new Promise((resolve) => {
      this.dying = resolve;
    });
    const { parts, sandboxes, clock, socketDir } = world;
    const own: Clock = { now: () => clock.now(), after: (ms, task) => this.after(ms, task) };
    this.watch = new LateWatch(parts.cluster, clock, world.lag);
    const { config, nameservers } = parts;
    const mortal: Parts = {
      ztunnelProcesses: parts.ztunnelProcesses,
      ...{ config, nameservers, logger: silent, metrics: noMetrics, clock: own, lastAliveAt: undefined },
      cluster: this.mortal("cluster", this.watch as unknown as Parts["cluster"]),
      finder: this.mortal(
        "finder",
        sandboxes.finder(this.held, async () => undefined),
      ),
      dataplane: this.mortal("dataplane", parts.dataplane),
      probes: this.mortal("probes", parts.probes),
      sidecars: this.mortal("sidecars", parts.sidecars),
      existing: this.mortal("existing", parts.existing),
      claims: this.mortal("claims", parts.claims),
      ztunnel: new ZdsServer({
        ...{ path: `${socketDir}/ztunnel.sock`, binding: this.door, logger: silent, metrics: noMetrics, clock: own },
        random: () => 0.5,
      }),
      decisions: new DecisionJournal(silent),
      drift: new DriftLedger(noMetrics),
      publish: async (clear) => {
        if (this.alive) await parts.publish(clear);
      },
    };
    this.agent = new Agent(mortal, SWEEP_MS, { periodMs: SWEEP_MS, podsEvery: 1 }, SWEEP_MS);
  }

  async start(): Promise<void> {
    await this.agent.start();
    this.started = true;
  }

  /** As SIGKILL. */
  end(): void {
    this.alive = false;
    this.door.shut();
    void this.watch.stop();
    for (const cancel of [...this.timers]) cancel();
    for (const netns of [...this.held]) netns.close();
    this.dying();
  }

  private after(ms: number, task: () => void): () => void {
    if (!this.alive) return () => undefined;
    const cancel = this.world.clock.after(ms, () => {
      this.timers.delete(stop);
      task();
    });
    const stop = () => {
      this.timers.delete(stop);
      cancel();
    };
    this.timers.add(stop);
    return stop;
  }

  private mortal<T extends object>(port: string, part: T): T {
    const fallible = new Set(FALLIBLE[port]);
    return new Proxy(part, {
      get: (_part, name: string) => {
        const value: unknown = Reflect.get(part, name, part);
        if (typeof value !== "function") return value;
        const call: Call = (...given) => this.made(name, value.apply(part, given));
        return (...given: unknown[]) => {
          if (!this.alive) return dead(value);
          if (port === "dataplane") held(given[0]);
          if (!fallible.has(name)) return call(...given);
          this.world.happened();
          const fault = this.world.point.next(`${port}.${name}`);
          if (WRITES.has(name)) this.world.told(`    ${name} ${shown(given)} ${fault ?? ""}`);
          const isAsync = value.constructor.name === "AsyncFunction" || ASYNC.has(name);
          if (isAsync) return this.async(name, fault, () => call(...given));
          return this.sync(name, fault, () => call(...given));
        };
      },
    });
  }

  /** What somebody has begun that is ended by a call of its own. */
  private made(name: string, result: unknown): unknown {
    if (name !== "watch" || typeof result !== "function") return result;
    this.watches += 1;
    let open = true;
    return () => {
      if (open) this.watches -= 1;
      open = false;
      result();
    };
  }

  private sync(name: string, fault: Fate, call: () => unknown): unknown {
    if (fault === undefined) return call();
    if (fault.startsWith("killed")) {
      if (fault === "killed after" && !WHOLE.has(name)) call();
      this.world.kill();
      throw new Error("the agent is dead");
    }
    throw refusal(name);
  }

  private async async(name: string, fault: Fate, call: () => unknown): Promise<unknown> {
    await this.takesTime();
    if (fault === "refused" || (fault === "lost" && WHOLE.has(name))) throw refusal(name);
    if (fault === "killed before") this.world.kill();
    if (fault === "late" && name === "annotate") await this.world.clock.pause(LATE_MS);
    else if (fault === "late") throw refusal(name);
    // A patch that is on its way arrives, whatever becomes of who has sent it.
    if (!this.alive && fault !== "late") await new Promise(() => undefined);
    const result = await call();
    this.world.happened();
    if (fault === "killed after") this.world.kill();
    if (!this.alive) await new Promise(() => undefined);
    if (fault === "lost") throw refusal(name);
    await this.takesTime();
    return result;
  }

  private async takesTime(): Promise<void> {
    const ms = this.world.delay();
    if (ms > 0) await this.world.clock.pause(ms);
    if (!this.alive) await new Promise(() => undefined);
  }
}

type Call = (...given: unknown[]) => unknown;

const WRITES: ReadonlySet<string> = new Set([
  ...["annotate", "prepare", "capture", "drain", "release", "allow", "revoke", "readPod", "find"],
]);

function shown(given: readonly unknown[]): string {
  const [first, second] = given;
  const of = first as { uid?: string; id?: string; ips?: unknown } | string | undefined;
  const name = typeof of === "object" ? `${of.uid ?? ""}${of.id ?? ""} ${of.ips ?? ""}` : of;
  return `${name} ${typeof second === "object" && second !== null && !Array.isArray(second) ? "" : second}`;
}

const ASYNC: ReadonlySet<string> = new Set(["annotate", "find", "inhabited"]);

/** What the real ones do with a netns that is closed. */
function held(given: unknown): void {
  if (typeof given === "object" && given !== null && "fd" in given) void (given as NetnsHandle).fd;
}

function dead(value: { readonly name: string }): unknown {
  if (value.name === "pods" || value.name === "namespaces") return [].values();
  return ASYNC.has(value.name) || value.constructor.name === "AsyncFunction" ? new Promise(() => undefined) : undefined;
}

function refusal(name: string): Error {
  return new AgentError("REFUSED", `${name} is refused`);
}
