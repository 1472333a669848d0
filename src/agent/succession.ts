// SPDX-License-Identifier: Apache-2.0
import type { Clock } from "../core/clock.ts";
import type { Config } from "../core/config/config.ts";
import { AGENT_DAEMONSET } from "../core/constants.ts";
import type { AgentPod, Succession } from "../core/daemonset.ts";
import type { Stop } from "../core/disposable.ts";
import { codeOf, messageOf } from "../core/errors.ts";
import type { Cluster } from "../core/ports/cluster.ts";
import type { Logger } from "../core/ports/telemetry.ts";
import { type Answer, successorOf } from "./successor.ts";

export interface SuccessionOptions {
  readonly cluster: Pick<Cluster, "readDaemonSet" | "readAgentPod" | "readNode">;
  readonly config: Pick<Config, "ambientEnabled" | "disableSafeUpgrade" | "nodeName" | "podName" | "podNamespace">;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Of one call and of its one repetition, in ms. */
const CALL_MS = 1000;
/** A refusal is an answer; asking again helps only where none came. */
const NO_ANSWER = /^KUBE_(UNREACHABLE|TIMEOUT|STOPPED|THROTTLED|STATUS_5\d\d)$/;

/** Asks the API, when the agent is told to end, who comes after it. */
export class SuccessionQuestion {
  #pod: AgentPod | undefined;

  constructor(private readonly options: SuccessionOptions) {}

  /** Grace period of the agent's pod in s, as far as known. */
  get graceSeconds(): number | undefined {
    return this.#pod?.graceSeconds;
  }

  /** Reads the agent's own pod, so that it need not be read at the end. Never rejects. */
  async prepare(): Promise<void> {
    const pod = await this.#readPod();
    if ("unknown" in pod) this.options.logger.info("the agent's own pod can't be read", { reason: pod.unknown });
  }

  /** Takes two seconds at most, four when the pod could not be read before and its DaemonSet has a name of its own. */
  async ask(): Promise<Succession> {
    const { ambientEnabled, disableSafeUpgrade, nodeName, podNamespace } = this.options.config;
    if (disableSafeUpgrade) return { successor: "none", reason: "AMBIENT_DISABLE_SAFE_UPGRADE is true" };
    const answer = await this.#ask(podNamespace, nodeName);
    if (ambientEnabled || answer.certain) return answer.succession;
    // Without ambient the plugin lets every pod pass while the agent is away: nothing depends on it, and the
    // stock chart grants no right to ask then.
    return { successor: "none", reason: `ambient is off, and ${answer.succession.reason}` };
  }

  async #ask(namespace: string, nodeName: string): Promise<{ succession: Succession; certain: boolean }> {
    const same = (reason: string) => ({ succession: { successor: "same" as const, reason }, certain: false });
    if (namespace === "") return same("POD_NAMESPACE is not set, so the DaemonSet can't be asked for");
    const { cluster } = this.options;
    const readDaemonSet = (name: string) => this.#read((signal) => cluster.readDaemonSet(namespace, name, signal));
    const expected = this.#owner() ?? AGENT_DAEMONSET;
    const [pod, node, first] = await Promise.all([
      this.#pod === undefined ? this.#readPod() : { found: this.#pod },
      this.#read((signal) => cluster.readNode(nodeName, signal)),
      readDaemonSet(expected),
    ]);
    const strange = this.#strangeOwner();
    if (strange !== undefined) return same(`the agent is not run by a DaemonSet but by ${strange}`);
    const name = this.#owner() ?? AGENT_DAEMONSET;
    const daemonSet = name === expected ? first : await readDaemonSet(name);
    const succession = successorOf({ name: `${namespace}/${name}`, daemonSet, pod, node });
    return { succession, certain: "found" in daemonSet };
  }

  /** Its DaemonSet by the pod's own word; undefined where that says nothing. */
  #owner(): string | undefined {
    const owner = this.#pod?.owner;
    return owner?.kind === "DaemonSet" && owner.group === "apps" ? owner.name : undefined;
  }

  #strangeOwner(): string | undefined {
    const owner = this.#pod?.owner;
    return owner === undefined || this.#owner() !== undefined ? undefined : `${owner.kind} ${owner.name}`;
  }

  async #readPod(): Promise<Answer<AgentPod>> {
    const { cluster, config } = this.options;
    const { podName, podNamespace, nodeName } = config;
    if (podName === "" || podNamespace === "") return { unknown: "POD_NAME or POD_NAMESPACE is not set" };
    const answer = await this.#read((signal) => cluster.readAgentPod(podNamespace, podName, signal));
    if ("found" in answer && answer.found !== undefined) {
      // A name that was set by hand may be that of another node's agent.
      if (answer.found.nodeName !== nodeName) return { unknown: `pod ${podName} runs on ${answer.found.nodeName}` };
      this.#pod = answer.found;
    }
    return answer;
  }

  async #read<T>(read: (signal: AbortSignal) => Promise<T | undefined>): Promise<Answer<T>> {
    const first = await this.#readOnce(read);
    if (!("unknown" in first) || !first.again) return first;
    return await this.#readOnce(read);
  }

  async #readOnce<T>(
    read: (signal: AbortSignal) => Promise<T | undefined>,
  ): Promise<{ readonly found: T | undefined } | { readonly unknown: string; readonly again: boolean }> {
    const abort = new AbortController();
    const late = { unknown: `no answer within ${CALL_MS / 1000} s`, again: true };
    let cancel: Stop = () => undefined;
    const deadline = new Promise<typeof late>((resolve) => {
      cancel = this.options.clock.after(CALL_MS, () => {
        resolve(late);
        abort.abort();
      });
    });
    try {
      const answer = read(abort.signal).then(
        (found) => ({ found }),
        (error: unknown) => ({ unknown: messageOf(error), again: NO_ANSWER.test(codeOf(error)) }),
      );
      return await Promise.race([answer, deadline]);
    } finally {
      cancel();
    }
  }
}
