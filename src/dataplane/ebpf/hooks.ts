// SPDX-License-Identifier: Apache-2.0
// The programs on the cgroup of all pods, attached once per node. They act on captured pods only.
import { AgentError } from "../../core/errors.ts";
import type { Logger } from "../../core/ports/telemetry.ts";
import type { NativeBinding } from "../../native/binding.ts";
import type { BpfNode } from "../../native/bpf.ts";
import type { Cgroup } from "../../sys/cgroup.ts";
import { type Cgroups, isWithin } from "./cgroups.ts";

/** In this order: what a captured connection needs is there before the first one is captured. */
export const OUTBOUND_PROGRAMS = [
  "ambient_sockops",
  "ambient_recvmsg4",
  "ambient_recvmsg6",
  "ambient_getpeername4",
  "ambient_getpeername6",
  "ambient_connect4",
  "ambient_connect6",
  "ambient_sendmsg4",
  "ambient_sendmsg6",
] as const;

/** A kernel that refuses them loses what they are for, and nothing else. */
const OPTIONAL: Readonly<Record<string, string>> = {
  ambient_getpeername4: "getpeername() of captured IPv4 connections shows a local address",
  ambient_getpeername6: "getpeername() of captured IPv6 connections shows a local address",
};

const PINS = "outbound";
const ALLOW_OVERRIDE = 1;
const ALLOW_MULTI = 2;

export class OutboundHooks {
  /** Links on the agent's own cgroup, where that is not among the pods'; they end with the agent. */
  #own: number[] = [];
  /** One look serves a turn of the event loop. */
  #seen: readonly string[] | undefined;

  constructor(
    private readonly binding: NativeBinding,
    private readonly bpf: BpfNode,
    private readonly cgroups: Cgroups,
    private readonly logger: Logger,
  ) {}

  /** Attaches what is missing or of another version. Idempotent. @throws AgentError CGROUP_OVERRIDDEN | NativeError. */
  ensure(): void {
    this.#forget();
    const pods = this.cgroups.pods();
    refuseOverride(this.binding, this.cgroups, pods);
    for (const program of this.#programs) this.bpf.linkCgroup(program, pods.path, `${PINS}/${pods.id}/${program}`);
    // The pods' cgroup may have been made after the agent had begun with the root.
    for (const other of this.bpf.pins(PINS)) {
      if (other === String(pods.id)) continue;
      this.logger.info("pods are in another cgroup than before", { cgroup: pods.path });
      this.bpf.unpin(`${PINS}/${other}`);
    }
  }

  /** Sentences about what is not attached as it should be. No fork; many pods asked about in a row share one look. */
  missing(): readonly string[] {
    if (this.#seen === undefined) {
      this.#seen = this.#look();
      setImmediate(() => this.#forget());
    }
    return this.#seen;
  }

  #forget(): void {
    this.#seen = undefined;
  }

  #look(): string[] {
    const pods = this.cgroups.pods();
    return this.#programs
      .filter((program) => {
        const link = this.bpf.link(`${PINS}/${pods.id}/${program}`);
        return link === undefined || link.target !== pods.id || link.program !== this.bpf.programs[program];
      })
      .map((program) => `program ${program} is not attached to the cgroup of all pods (${pods.path})`);
  }

  /** So that the agent's own verification connections meet the programs too, wherever the agent runs. */
  cover(own: Cgroup): void {
    const pods = this.cgroups.pods();
    if (this.#own.length > 0 || isWithin(own, pods)) return;
    this.#own = this.#programs.map((program) => this.bpf.holdCgroup(program, own.path));
  }

  /** What is lost because this kernel refuses a program, each a sentence. */
  get losses(): string[] {
    return Object.entries(OPTIONAL)
      .filter(([program]) => this.bpf.refused[program] !== undefined)
      .map(([program, loss]) => `${loss}: this kernel refuses ${program} (${this.bpf.refused[program]})`);
  }

  /** Pods stay captured; only the agent's own cgroup is let go. */
  close(): void {
    for (const fd of this.#own.splice(0)) this.binding.close(fd);
  }

  get #programs(): readonly string[] {
    return OUTBOUND_PROGRAMS.filter((program) => !(program in OPTIONAL && program in this.bpf.refused));
  }
}

/**
 * A program attached with ALLOW_OVERRIDE above gives way to ours for every pod: that is not ours to do.
 * @throws AgentError CGROUP_OVERRIDDEN
 */
export function refuseOverride(binding: NativeBinding, cgroups: Cgroups, pods: Cgroup): void {
  for (const cgroup of [...cgroups.ancestors(pods), pods]) {
    for (const program of OUTBOUND_PROGRAMS) {
      const { flags, count } = binding.bpfCgroupFlags(cgroup.path, program);
      if (count === 0 || (flags & ALLOW_MULTI) !== 0) continue;
      const how = (flags & ALLOW_OVERRIDE) !== 0 ? "would be overridden by ours" : "allows no other";
      throw new AgentError(
        "CGROUP_OVERRIDDEN",
        `cgroup ${cgroup.path} has a program of another tool at the place of ${program}, which ${how}`,
        "attach it with BPF_F_ALLOW_MULTI, or set AMBIENT_CNI_ENGINE=nftables",
      );
    }
  }
}
