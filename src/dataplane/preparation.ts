// SPDX-License-Identifier: Apache-2.0
// What all engines count on in a pod: policy routing and sysctls. And which of it is ours to take away.
import { AgentError } from "../core/errors.ts";
import type { CaptureSpec } from "../core/ports/dataplane.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { PlannedChange } from "../core/ports/plan.ts";
import type { NativeBinding } from "../native/binding.ts";
import type { Engine } from "./engine.ts";
import { addRouting, plannedRouting, removeRouting, routingPresent } from "./routes.ts";
import { familiesOf } from "./routing-state.ts";
import {
  ALL_LETTERS,
  leftToUpstream,
  mergedLetters,
  plannedSysctls,
  restoreSysctls,
  setSysctls,
  wrongSysctls,
} from "./sysctls.ts";
import { upstreamPresent } from "./upstream/traces.ts";

export interface Prepared {
  /** Letters of what was changed. */
  readonly sysctls: string;
  /** Nothing of ours was in the netns before. */
  readonly untouched: boolean;
  /** For an engine that does. */
  readonly translates: boolean;
}

type SysctlNeeds = Pick<Engine, "needsSysctls" | "translates">;

export class Preparation {
  /** What `prepare` did, until capture has written it beside the steering. */
  readonly #prepared = new WeakMap<NetnsHandle, Prepared>();

  constructor(
    private readonly binding: NativeBinding,
    /** Letters that were written beside the steering, undefined without steering. */
    private readonly written: (netns: NetnsHandle) => string | undefined,
  ) {}

  /** What was done since the last capture. */
  of(netns: NetnsHandle): Prepared | undefined {
    return this.#prepared.get(netns);
  }

  /** Idempotent; undone when it fails. @throws AgentError SYSCTL_DENIED. */
  prepare(netns: NetnsHandle, spec: CaptureSpec, { needsSysctls, translates }: SysctlNeeds): void {
    const { binding } = this;
    // Before any sysctl: after a kill, the rule is all that tells whose they are. Where no rule was there,
    // nothing else of ours was either: it is written first and removed last.
    const wanted = familiesOf(binding, netns, spec);
    const added = addRouting(binding, netns.fd, wanted);
    const untouched = added.length === wanted.length && !this.#prepared.has(netns);
    const letters = untouched ? "" : this.letters(netns);
    const { changed, failures } = setSysctls(binding, netns.fd, translates);
    const refused = failures.filter(({ required }) => required);
    if (refused.length > 0 && needsSysctls) {
      restoreSysctls(binding, netns.fd, changed);
      removeRouting(binding, netns.fd, added);
      throw new AgentError(
        "SYSCTL_DENIED",
        `sysctls of ${spec.pod} can't be set, though the self-test could: ${refused.map(({ key, reason }) => `${key}: ${reason}`).join(", ")}`,
      );
    }
    this.#prepared.set(netns, { sysctls: mergedLetters(letters, changed), untouched, translates });
  }

  /** What `prepare` would do to a netns in which nothing of ours is, and the letters that it would remember. */
  plan(
    netns: NetnsHandle,
    spec: CaptureSpec,
    { translates }: SysctlNeeds,
  ): { readonly changes: readonly PlannedChange[]; readonly letters: string } {
    const routing = plannedRouting(familiesOf(this.binding, netns, spec));
    const sysctls = plannedSysctls(this.binding, netns.fd, translates);
    return {
      changes: [
        { what: "policy routing in the pod", text: routing.join("\n") },
        { what: "sysctls of the pod", text: sysctls.lines.join("\n") },
      ],
      // What is ours already does not count as somebody else's.
      letters: mergedLetters(this.letters(netns), sysctls.letters),
    };
  }

  /**
   * Letters of the sysctls that we have changed in this netns. Routing without anything else was left by an
   * agent that died between prepare and capture: then all of them are taken for ours. So they are where
   * upstream's routing was there before: it sets none, and hardly anybody else sets them all.
   */
  letters(netns: NetnsHandle): string {
    const known = this.#prepared.get(netns)?.sysctls ?? this.written(netns);
    if (known !== undefined) return known;
    if (!routingPresent(this.binding, netns.fd)) return "";
    const upstreams = upstreamPresent(this.binding, netns.fd);
    if (!upstreams || wrongSysctls(this.binding, netns.fd, false).length === 0) return ALL_LETTERS;
    return leftToUpstream(this.binding, netns.fd);
  }

  /** It is written beside the steering now, or gone. */
  forget(netns: NetnsHandle): void {
    this.#prepared.delete(netns);
  }
}
