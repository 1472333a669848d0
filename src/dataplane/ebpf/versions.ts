// SPDX-License-Identifier: Apache-2.0
// What agents of other versions have pinned: programs of another generation beside ours, and whole
// directories of another schema. They go once nothing counts on them any more.
import { type Clock, systemClock } from "../../core/clock.ts";
import type { Logger } from "../../core/ports/telemetry.ts";
import type { BpfNode } from "../../native/bpf.ts";

/** Where other schemas lie, seen from the directory of ours. */
const SIDE = "..";
const SCHEMA_NAME = /^v\d+$/;
/** They turn new connections; the others serve those that were turned already. */
const TURNING = ["ambient_connect4", "ambient_connect6", "ambient_sendmsg4", "ambient_sendmsg6"] as const;
/** How long (ms) a connection that the other schema has turned may take until ztunnel has asked about it. */
const HANDSHAKE_MS = 10_000;

export class OtherVersions {
  /** When the last connection can have been turned by the programs of a schema. */
  readonly #silentSince = new Map<string, number>();

  constructor(
    private readonly bpf: BpfNode,
    /** Name of the directory of our own schema. */
    private readonly own: string,
    private readonly logger: Logger,
    private readonly clock: Clock = systemClock,
  ) {}

  /** True when an agent of another schema captured this pod, and that is still so. */
  holds(cookie: bigint): boolean {
    return this.#schemas().some((schema) => this.bpf.link(lookupPin(schema, String(cookie))) !== undefined);
  }

  /** Of a pod that is released: programs of another schema know it no more. Idempotent. */
  forget(cookie: bigint): void {
    for (const schema of this.#schemas()) {
      this.bpf.erase(`${SIDE}/${schema}/maps/pods`, cookie);
      this.bpf.unpin(`${SIDE}/${schema}/pods/${cookie}`);
    }
  }

  /** How many pods agents of other schemas have captured, that are so still. */
  captured(isInUse: (inode: bigint) => boolean): number {
    return this.#schemas().reduce((sum, schema) => sum + this.#pods(schema, isInUse).length, 0);
  }

  /** Removes what no pod needs any more; `hooked`: our programs are on every cgroup. */
  collect(hooked: boolean): void {
    if (!hooked) return;
    if (this.#allPodsAreOfOurGeneration()) {
      for (const generation of this.bpf.pins("programs")) {
        if (generation === this.bpf.generation) continue;
        this.logger.info("programs of another version are not needed any more", { generation });
        this.bpf.unpin(`programs/${generation}`);
      }
    }
    for (const schema of this.#schemas()) this.#collectSchema(schema);
  }

  /**
   * A pod that both schemas know is turned by the older hooks, for they were attached first, and ztunnel is
   * answered by the older program. So: no new connections by those hooks, then time for the ones under way,
   * then the rest.
   */
  #collectSchema(schema: string): void {
    const waiting = this.#pods(schema, (inode) => inode !== 0n).filter(
      (cookie) => this.bpf.podRead(BigInt(cookie)) === undefined,
    );
    if (waiting.length > 0) {
      this.#silentSince.delete(schema);
      return;
    }
    const since = this.#silentSince.get(schema);
    if (since === undefined) {
      for (const cgroup of this.bpf.pins(`${SIDE}/${schema}/outbound`)) {
        for (const program of TURNING) this.bpf.unpin(`${SIDE}/${schema}/outbound/${cgroup}/${program}`);
      }
      this.#silentSince.set(schema, this.clock.now());
      return;
    }
    if (this.clock.now() - since < HANDSHAKE_MS) return;
    this.#silentSince.delete(schema);
    this.logger.info("all pods were taken over from an agent of another version", { schema });
    this.bpf.unpin(`${SIDE}/${schema}`);
  }

  /** Pods that a schema captures, whose netns is there. */
  #pods(schema: string, isThere: (inode: bigint) => boolean): string[] {
    return this.bpf
      .pins(`${SIDE}/${schema}/pods`)
      .filter((name) => /^\d+$/.test(name))
      .filter((cookie) => isThere(this.bpf.link(lookupPin(schema, cookie))?.target ?? 0n));
  }

  #allPodsAreOfOurGeneration(): boolean {
    return this.bpf
      .pins("pods")
      .map((pod) => this.bpf.link(`pods/${pod}/lookup`))
      .every((link) => link === undefined || link.program === this.bpf.programs.ambient_lookup);
  }

  #schemas(): string[] {
    return this.bpf.pins(SIDE).filter((name) => SCHEMA_NAME.test(name) && name !== this.own);
  }
}

function lookupPin(schema: string, cookie: string): string {
  return `${SIDE}/${schema}/pods/${cookie}/lookup`;
}
