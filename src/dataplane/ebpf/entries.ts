// SPDX-License-Identifier: Apache-2.0
import { AgentError } from "../../core/errors.ts";
import { familyOf } from "../../core/ip.ts";
import type { CaptureSpec } from "../../core/ports/dataplane.ts";
import type { NetnsHandle } from "../../core/ports/netns.ts";
import type { NativeBinding } from "../../native/binding.ts";
import type { BpfPod, BpfPodLists } from "../../native/bpf.ts";
import type { EngineState } from "../engine.ts";
import { glance } from "../glance.ts";
import type { PlanMode } from "../netfilter/mode.ts";
import { routedShadows } from "./local-routes.ts";
import type { EbpfNode } from "./node.ts";
import { ipOf, planPod } from "./pod.ts";
import { freeShadow, isShadowOf } from "./shadow.ts";

/** What the programs are to know of a pod: from what is wanted of it, what is in its netns, and what it has already. */
export class Entries {
  constructor(
    private readonly binding: NativeBinding,
    private readonly node: () => EbpfNode,
    private readonly cookieOf: (netns: NetnsHandle) => bigint,
  ) {}

  /** Reads the kernel. @throws AgentError NO_SHADOW, BAD_* for a value that is refused */
  planned(netns: NetnsHandle, spec: CaptureSpec, mode: PlanMode, state: EngineState): BpfPod & BpfPodLists {
    const { addresses, families } = glance(this.binding, netns.fd);
    const captured = families.filter((family) => family === 4 || spec.ipv6);
    const locals = addresses
      .map(({ address }) => address)
      .filter((address) => !spec.ips.includes(address) && address !== "127.0.0.1" && address !== "::1");
    const shadow = (family: 4 | 6) => {
      const ip = ipOf(spec, family);
      return ip === "" || !captured.includes(family) ? "" : this.#shadow(netns, ip);
    };
    const { sysctls, beside = false } = state;
    return planPod(spec, { shadow4: shadow(4), shadow6: shadow(6), locals: locals.sort(), sysctls, beside }, mode);
  }

  /** The one it has, also when an agent of another version gave it: open connections are bound to it. */
  #shadow(netns: NetnsHandle, ip: string): string {
    const node = this.node();
    const cookie = this.cookieOf(netns);
    const pod = node.bpf.podRead(cookie);
    const had = pod === undefined ? routedShadows(this.binding, netns.fd, familyOf(ip)) : [pod.shadow4, pod.shadow6];
    const usable = (shadow: string) => isShadowOf(shadow, ip) && !node.isTaken(shadow, cookie);
    const chosen = had.find(usable) ?? freeShadow(ip, (shadow) => node.isTaken(shadow, cookie));
    if (chosen === undefined) throw new AgentError("NO_SHADOW", `all shadow addresses for ${ip} are taken`);
    return chosen;
  }
}
