// SPDX-License-Identifier: Apache-2.0
import type { Stop } from "../core/disposable.ts";
import { evaluate } from "../core/eligibility.ts";
import { messageOf } from "../core/errors.ts";
import { plainPod } from "../core/pod.ts";
import { matchesLabels } from "../core/selector.ts";
import { rulesOf } from "./desire.ts";
import type { Parts } from "./parts.ts";

/** Changes that come close together are written once, in ms. */
const SETTLE_MS = 200;

/**
 * Keeps the file up to date that lets the plugin judge while the agent is away. A namespace is clear
 * when no selector names it by its labels (whatever that selector wants of the pod), a pod without
 * labels would not be in the mesh there, and no pod of this node is in the mesh by its own label.
 */
export class Publication {
  private cancelTouch: Stop | undefined;
  private last: string | undefined;
  private wanted: "if new" | "anyway" | undefined;
  private writing: Promise<void> | undefined;
  private stopped = false;

  constructor(private readonly parts: Parts) {}

  /** Something changed: write soon. */
  touch(): void {
    if (this.cancelTouch !== undefined || this.stopped) return;
    this.cancelTouch = this.parts.clock.after(SETTLE_MS, () => {
      this.cancelTouch = undefined;
      void this.write();
    });
  }

  /**
   * Writes if the content is new, or anyway with `refresh`: the file's time says when an agent was last alive.
   * One write at a time, with what is true when it begins: an older content must not replace a newer one, by
   * which a namespace that has joined the mesh would still be clear. Failing is logged: without the file the
   * plugin fails closed.
   */
  async write(refresh = false): Promise<void> {
    if (this.stopped) return;
    if (this.wanted !== "anyway") this.wanted = refresh ? "anyway" : "if new";
    this.writing ??= this.drain();
    await this.writing;
  }

  /** No write begins any more, but for a last one with `refresh`. Resolves when none is under way. */
  async stop(refresh: boolean): Promise<void> {
    this.cancelTouch?.();
    const last = refresh ? this.write(true) : this.writing;
    this.stopped = true;
    if (!refresh) this.wanted = undefined;
    await last;
  }

  private async drain(): Promise<void> {
    try {
      while (this.wanted !== undefined) {
        const refresh = this.wanted === "anyway";
        this.wanted = undefined;
        await this.writeNow(refresh);
      }
    } finally {
      // At once: whoever asks from here on begins anew.
      this.writing = undefined;
    }
  }

  private async writeNow(refresh: boolean): Promise<void> {
    const clear = this.clearNamespaces();
    const text = clear.join("\n");
    if (!refresh && text === this.last) return;
    try {
      await this.parts.publish(clear);
      this.last = text;
    } catch (error) {
      this.parts.logger.warn("publishing the state for the plugin", { error: messageOf(error) });
    }
  }

  clearNamespaces(): string[] {
    const { cluster, config } = this.parts;
    const rules = rulesOf(config);
    const occupied = new Set<string>();
    for (const pod of cluster.pods()) {
      const labels = cluster.namespace(pod.namespace)?.labels;
      if (evaluate(rules, pod, labels).verdict !== "none") occupied.add(pod.namespace);
    }
    return [...cluster.namespaces()]
      .filter(({ name, labels }) => {
        const named = rules.enablementSelectors.some(
          ({ namespaceSelector }) =>
            namespaceSelector.requirements.length > 0 && matchesLabels(namespaceSelector, labels),
        );
        return (
          !named && !occupied.has(name) && evaluate(rules, plainPod({ namespace: name }), labels).verdict === "none"
        );
      })
      .map(({ name }) => name)
      .sort();
  }
}
