// SPDX-License-Identifier: Apache-2.0
import { AgentError } from "../core/errors.ts";
import type { Pod } from "../core/pod.ts";
import type { NetnsFinder, NetnsHandle, NetnsId } from "../core/ports/netns.ts";
import { type HeldNetns, openNetns } from "../native/netns.ts";
import { Proc } from "../sys/proc.ts";

/**
 * For a container without the node's /proc, as istio-cni's chart makes it with neither ambient nor anything to
 * repair: a pod's netns is known only as the plugin hands it over. The node's own stays unknown, and nothing is
 * written there without ambient; `host()` is the agent's.
 */
export class HandedNetnsFinder implements NetnsFinder {
  readonly #own: HeldNetns = openNetns(new Proc("/proc").netnsPath("self"));

  /** `reason`: why there is no other way. */
  constructor(private readonly reason: AgentError) {}

  host(): NetnsHandle {
    return this.#own;
  }

  open(hostPath: string, handed?: NetnsHandle): NetnsHandle {
    const shown = JSON.stringify(hostPath.slice(0, 200));
    // The plugin's own, which is the node's, was refused when it was handed over.
    if (handed !== undefined && handed.id !== this.#own.id) return handed;
    handed?.close();
    if (handed !== undefined) throw new AgentError("NETNS_IS_HOST", `${shown} is the network namespace of the agent`);
    throw this.#unreached("NETNS_UNREADABLE", `the network namespace ${shown}`);
  }

  missing(): readonly string[] {
    throw this.#unreached("PROC_UNREADABLE", "addresses of a network namespace");
  }

  async find(pods: readonly Pod[]): Promise<Map<string, NetnsHandle>> {
    if (pods.length === 0) return new Map();
    throw this.#unreached("PROC_UNREADABLE", "the network namespaces of running pods");
  }

  async inhabited(): Promise<ReadonlySet<NetnsId>> {
    throw this.#unreached("PROC_UNREADABLE", "the network namespaces of running pods");
  }

  #unreached(code: string, what: string): AgentError {
    const { message, remedy } = this.reason;
    return new AgentError(code, `cannot reach ${what}: ${message}`, remedy, { cause: this.reason });
  }
}
