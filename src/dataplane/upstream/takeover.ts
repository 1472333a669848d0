// SPDX-License-Identifier: Apache-2.0
// A pod that upstream's istio-cni has captured becomes ours without losing a connection. Our engine is put
// beside upstream's rules; then those stop redirecting; what they keep alive goes on, and the last of them go
// when nothing lives by them any more. Each pass over the pod does what is due, whoever began it.
import type { Observation } from "../../core/ports/dataplane.ts";
import type { NetnsHandle } from "../../core/ports/netns.ts";
import type { NativeBinding } from "../../native/binding.ts";
import type { Engine } from "../engine.ts";
import { unmarkedLegs } from "../legs.ts";
import type { Legs } from "../netfilter/mode.ts";
import { isBehindNetfilter, steeredSockets } from "../proxied.ts";
import type { UpstreamTraces } from "./traces.ts";
import type { UpstreamRules } from "./upstream.ts";

export class Takeover {
  constructor(
    private readonly binding: NativeBinding,
    private readonly upstream: UpstreamRules,
  ) {}

  /**
   * What a pod without anything of ours looks like: where upstream's rules redirect it is captured, though not
   * by us, and must never be let out. What merely is left of them is nothing. No fork.
   */
  foreign(netns: NetnsHandle): Observation {
    const steers = this.upstream.traces(netns.fd)?.steers === true;
    if (!steers) return { mode: "absent", engine: undefined, differences: [] };
    return { mode: "differs", engine: undefined, differences: ["istio-cni's rules redirect its connections"] };
  }

  /** Sentences about what is due in a pod that `engine` captures. No fork. */
  differences(netns: NetnsHandle, engine: Engine): string[] {
    const traces = this.upstream.traces(netns.fd);
    if (traces?.steers) return ["istio-cni's rules redirect its connections too"];
    if (traces !== undefined) {
      return this.#isIdle(netns, engine) ? ["istio-cni's rules are not needed any more"] : [];
    }
    if (engine.state(netns)?.legs === "upstream" && this.legs(netns, engine, traces) === "own") {
      return ["the connections that istio-cni's rules had redirected have ended"];
    }
    return [];
  }

  /**
   * How the engine is to tell ztunnel's legs. Where sockets can't be marked nothing tells old ones from new:
   * such a pod keeps upstream's way for its life.
   */
  legs(netns: NetnsHandle, engine: Engine, traces: UpstreamTraces | undefined): Legs {
    if (traces !== undefined) return "upstream";
    if (engine.state(netns)?.legs !== "upstream") return "own";
    const { older, marked } = unmarkedLegs(this.binding, netns.fd);
    return engine.needsSysctls && older + marked === 0 ? "own" : "upstream";
  }

  /** Before `engine` steers. @throws AgentError. */
  async begin(netns: NetnsHandle, engine: Engine, traces: UpstreamTraces | undefined): Promise<void> {
    if (traces?.steers && !engine.translates) await this.upstream.shield(netns.fd);
  }

  /** Once `engine` steers. @returns whether nothing of upstream's is left. @throws AgentError. */
  async proceed(netns: NetnsHandle, engine: Engine, traces: UpstreamTraces | undefined): Promise<boolean> {
    if (traces === undefined) return true;
    if (!this.#isIdle(netns, engine)) {
      await this.upstream.end(netns.fd);
      return false;
    }
    // Not yet idle when it still redirects: what it redirects until then must live on.
    if (traces.steers && !engine.translates) {
      await this.upstream.end(netns.fd);
      if (!this.#isIdle(netns, engine)) return false;
    }
    await this.upstream.remove(netns.fd);
    return true;
  }

  /** Nothing lives by upstream's rules that would not live by the engine's too. */
  #isIdle(netns: NetnsHandle, engine: Engine): boolean {
    if (engine.translates) return true;
    // HBONE is not redirected, but its legs are like all others. The engine takes care of marked listeners.
    if (steeredSockets(this.binding, netns.fd).some(isBehindNetfilter)) return false;
    return unmarkedLegs(this.binding, netns.fd).older === 0;
  }
}
