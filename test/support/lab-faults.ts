// SPDX-License-Identifier: Apache-2.0
// A pod under agents, of which one meets a fault at each of its writes in turn.
import { expect } from "vitest";
import { messageOf } from "../../src/core/errors.ts";
import type { CaptureSpec, EngineName } from "../../src/core/ports/dataplane.ts";
import { NodeDataplane } from "../../src/dataplane/dataplane.ts";
import { EbpfEngine } from "../../src/dataplane/ebpf/engine.ts";
import { type EbpfVersion, KNOBS, SCHEMA } from "../../src/dataplane/ebpf/node.ts";
import { netfilterEngines } from "../../src/dataplane/engines.ts";
import type { UpstreamSettings } from "../../src/dataplane/upstream/form.ts";
import type { NativeBinding } from "../../src/native/binding.ts";
import { native } from "../../src/native/load.ts";
import { type HeldNetns, openNetns } from "../../src/native/netns.ts";
import { type Fault, Faults } from "./faulty-binding.ts";
import { freshBpffs, LabCgroups } from "./lab-bpf.ts";
import { noMetrics, quiet, specOf, stateOf } from "./lab-dataplane.ts";
import { expectAlive, TrafficLab, WAYS } from "./lab-traffic.ts";

export const OURS: EbpfVersion = { schema: SCHEMA, knobs: KNOBS };
/** For what is dropped. */
const SILENCE_MS = 150;

export interface FaultAgent {
  readonly ebpf: EbpfEngine;
  readonly dataplane: NodeDataplane;
}

export interface Course {
  /** What holds before. */
  readonly given: () => Promise<unknown>;
  /** By the agent that meets the fault. */
  readonly change: (netns: HeldNetns) => Promise<unknown>;
  /** By the next one. */
  readonly finish: () => Promise<unknown>;
  /** What must hold before and right after the fault. */
  readonly always: () => Promise<void>;
  /** What must hold in the end. */
  readonly finally: () => Promise<void>;
  /** Whether connections that are open then stay so. */
  readonly lasting: boolean;
}

/** Agents that share a bpffs, and with `renew` a pod for each test. */
export class FaultLab {
  readonly config: { engine: "auto" } & UpstreamSettings = { engine: "auto" };
  readonly #faults = new Faults();
  readonly #bpffs = freshBpffs();
  readonly #agents: FaultAgent[] = [];
  #traffic: TrafficLab | undefined;
  #before = "";

  async start(version = OURS): Promise<FaultAgent> {
    return await this.#start(version, native());
  }

  async startFaulty(version = OURS): Promise<FaultAgent> {
    return await this.#start(version, this.#faults.binding());
  }

  async renew(): Promise<void> {
    await this.#traffic?.close();
    this.#traffic = await TrafficLab.create();
    this.#before = await stateOf(this.pod);
  }

  async close(): Promise<void> {
    await this.#traffic?.close();
    for (const { dataplane } of this.#agents) dataplane.close();
    native().bpfRemove(this.#bpffs);
  }

  /** As agents know it that meet no fault. */
  get pod(): HeldNetns {
    return this.traffic.lab.pod.netns;
  }

  get traffic(): TrafficLab {
    if (this.#traffic === undefined) throw new Error("there is no pod yet");
    return this.#traffic;
  }

  spec(changes: Partial<CaptureSpec> & { readonly engine?: EngineName } = {}): CaptureSpec {
    return specOf(this.traffic.lab, changes);
  }

  /** The pod's netns is as it was before anybody captured the pod, but for lines like `but`. */
  async expectUntouched(but = /^$/): Promise<void> {
    const lines = (state: string) => state.split("\n").filter((line) => !but.test(line));
    expect(lines(await stateOf(this.pod))).toEqual(lines(this.#before));
  }

  /** Every way opens, through ztunnel. */
  readonly throughZtunnel = async (): Promise<void> => {
    for (const way of WAYS) {
      const seen = this.traffic.accepted;
      const call = await this.traffic.open(way).catch((error: unknown) => {
        throw new Error(`${way.direction}${way.family}: ${messageOf(error)}`);
      });
      if (this.traffic.accepted !== seen + 1) throw new Error(`${way.direction}${way.family} passed ztunnel by`);
      call.close();
    }
  };

  /** Every way opens, whichever way it goes. */
  readonly open = async (): Promise<void> => {
    for (const call of await this.traffic.openAll()) call.close();
  };

  /** What opens, opens through ztunnel. */
  readonly nothingPasses = async (): Promise<void> => {
    const seen = this.traffic.accepted;
    const calls = await Promise.allSettled(WAYS.map((way) => this.traffic.open(way, { timeout: SILENCE_MS })));
    const opened = calls.flatMap((call) => (call.status === "fulfilled" ? [call.value] : []));
    const captured = this.traffic.accepted - seen;
    if (opened.length > captured) throw new Error(`of ${opened.length} connections ztunnel saw ${captured}`);
    for (const call of opened) call.close();
  };

  /** As `Faults.during`, of an agent that knows the pod as `netns` and remembers nothing of it. */
  async during(
    fault: Fault,
    writes: number,
    doing: (netns: HeldNetns) => Promise<unknown>,
  ): Promise<string | undefined> {
    const anew = openNetns(`/proc/self/fd/${this.pod.fd}`);
    try {
      return await this.#faults.during(fault, writes, () => doing(anew));
    } finally {
      anew.close();
    }
  }

  /** The fault after no write, one, two, ... until the change needs no more. */
  async expectEverywhere(fault: Fault, course: Course): Promise<void> {
    for (let writes = 0; ; writes++) {
      await course.given();
      if (writes === 0) await course.always();
      const lasting = course.lasting ? await this.traffic.openAll() : [];
      const unmade = await this.during(fault, writes, course.change);
      try {
        await course.always();
        await expectAlive(lasting);
        await course.finish();
        await course.finally();
        await expectAlive(lasting);
      } catch (error) {
        const when = `after ${writes} writes, at ${unmade ?? "the end"}`;
        throw new Error(`${when}: ${messageOf(error)}`, { cause: error });
      }
      for (const call of lasting) call.close();
      if (unmade !== undefined) continue;
      expect(writes).toBeGreaterThan(0);
      return;
    }
  }

  async #start(version: EbpfVersion, binding: NativeBinding): Promise<FaultAgent> {
    const bpffs = { path: this.#bpffs };
    const ebpf = new EbpfEngine({ binding, logger: quiet, bpffs, cgroups: new LabCgroups(), version });
    const engines = [ebpf, ...netfilterEngines(binding, quiet, undefined)];
    const dataplane = new NodeDataplane({ binding, logger: quiet, metrics: noMetrics, config: this.config, engines });
    await dataplane.start();
    const agent = { ebpf, dataplane };
    this.#agents.push(agent);
    return agent;
  }
}
