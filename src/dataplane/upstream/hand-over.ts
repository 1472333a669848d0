// SPDX-License-Identifier: Apache-2.0
// A pod of ours becomes upstream's without losing a connection: its own rules are put beside our engine, then
// ours steers no more. What open connections still need of it stays, and is in nobody's way.
import { AgentError } from "../../core/errors.ts";
import { canonicalIp } from "../../core/ip.ts";
import type { CaptureSpec } from "../../core/ports/dataplane.ts";
import type { NetnsHandle } from "../../core/ports/netns.ts";
import type { NativeBinding } from "../../native/binding.ts";
import type { Engine } from "../engine.ts";
import { existingAmong, LISTED_STATES, mayExist } from "../existing.ts";
import { unmarkedLegs } from "../legs.ts";
import type { Preparation } from "../preparation.ts";
import type { Presence } from "../presence.ts";
import { steeredSockets } from "../proxied.ts";
import { giveBackPorts } from "../reserved-ports.ts";
import { restoreSysctls, withoutUpstreams } from "../sysctls.ts";
import type { UpstreamForm } from "./form.ts";
import type { UpstreamRules } from "./upstream.ts";

export interface HandOverParts {
  readonly binding: NativeBinding;
  readonly presence: Presence;
  readonly preparation: Preparation;
  readonly upstream: UpstreamRules;
  /** What upstream's agent would choose now. */
  readonly form: () => UpstreamForm;
}

type Shield = "none" | "there, perhaps";

export class HandOver {
  constructor(private readonly parts: HandOverParts) {}

  /** See Dataplane. @throws AgentError. */
  async perform(netns: NetnsHandle, spec: CaptureSpec): Promise<void> {
    const { binding, presence, preparation } = this.parts;
    const engines = presence.of(netns);
    const letters = preparation.letters(netns);
    const steering = engines.some((engine) => engine.mode(netns) === "captured");
    const shield = steering ? await this.#write(netns, spec, engines) : "there, perhaps";
    let gone = true;
    for (const engine of engines) gone = (await this.#leave(netns, spec, engine)) && gone;
    preparation.forget(netns);
    // Nobody would ever do it later.
    giveBackPorts(binding, netns.fd);
    // What goes on needs the sysctls.
    if (!gone) return;
    if (engines.length > 0) restoreSysctls(binding, netns.fd, withoutUpstreams(letters));
    if (shield !== "none" && !this.#needsShield(netns, spec, [])) await this.parts.upstream.unshield(netns.fd);
  }

  /**
   * Upstream's rules steer from here on. Undone when it fails. The shield stays where connections are open that
   * would be taken for new ones.
   */
  async #write(netns: NetnsHandle, spec: CaptureSpec, engines: readonly Engine[]): Promise<Shield> {
    const { upstream } = this.parts;
    const form = this.parts.form();
    const untouched = !upstream.present(netns.fd);
    const shield = this.#needsShield(netns, spec, engines);
    try {
      await upstream.write(netns.fd, spec, form, shield);
      if (!upstream.redirects(netns.fd, spec, form)) {
        throw new AgentError("HAND_OVER_FAILED", `istio-cni's rules were written into ${spec.pod} and are not there`);
      }
    } catch (error) {
      if (untouched) await upstream.remove(netns.fd);
      throw error;
    }
    return untouched && !shield ? "none" : "there, perhaps";
  }

  /** Our engine steers no more. Returns whether it is gone: else it goes on for open connections. */
  async #leave(netns: NetnsHandle, spec: CaptureSpec, engine: Engine): Promise<boolean> {
    if (engine.translates) {
      if (this.#hasLegsOf(netns, engine)) {
        if (engine.mode(netns) !== "retiring") await engine.retire(netns, spec);
        return false;
      }
    } else {
      await engine.retire(netns, spec);
      // A connection that was turned a moment ago has its socket by the next turn of the event loop.
      await new Promise((resolve) => setImmediate(resolve));
      const alive = engine.keepsAlive(steeredSockets(this.parts.binding, netns.fd));
      if (alive > 0 || this.#hasLegsOf(netns, engine)) return false;
    }
    await engine.remove(netns);
    return true;
  }

  /**
   * Legs whose replies only the engine brings back. Those to sockets with our mark come back by the policy rule
   * alone, those in upstream's way by its rules.
   */
  #hasLegsOf(netns: NetnsHandle, engine: Engine): boolean {
    const { older, marked } = unmarkedLegs(this.parts.binding, netns.fd);
    return older + marked > 0 && engine.state(netns)?.legs !== "upstream";
  }

  /** By the eBPF engine no packet has been tracked yet; by the others those of connections that were idle. */
  #needsShield(netns: NetnsHandle, spec: CaptureSpec, engines: readonly Engine[]): boolean {
    if (engines.some(({ translates }) => !translates)) return true;
    const sockets = this.parts.binding.sockets(netns.fd, { protocol: "tcp", states: LISTED_STATES });
    if (!mayExist(sockets)) return false;
    const own = new Set(this.parts.binding.addresses(netns.fd).map(({ address }) => canonicalIp(address)));
    // Whatever is direct is meant here, also by the pod's own wish.
    const direct = { ...spec, ipv6: true, bypassInbound: false, excludeOutboundCidrs: [] };
    const { inbound, outbound, doubtful } = existingAmong(sockets, { spec: direct, own, node: new Set() });
    return inbound.length + outbound.length + doubtful.length > 0;
  }
}
