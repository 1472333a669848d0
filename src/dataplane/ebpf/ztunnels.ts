// SPDX-License-Identifier: Apache-2.0
// The cgroups of ztunnels: where the question for the original destination is answered, and where
// listen() enters a listener into the map. A ztunnel whose cgroup is not hooked gets no connection.
import { ZTUNNEL_MARK, ZTUNNEL_PORT } from "../../core/constants.ts";
import { AgentError, messageOf } from "../../core/errors.ts";
import type { Logger } from "../../core/ports/telemetry.ts";
import type { ZtunnelPeer } from "../../core/ports/ztunnel.ts";
import type { NativeBinding, SocketInfo } from "../../native/binding.ts";
import type { BpfNode } from "../../native/bpf.ts";
import type { Cgroup } from "../../sys/cgroup.ts";
import { type Cgroups, isWithin } from "./cgroups.ts";

const PINS = "ztunnel";
/** One, its successor, and two that are on their way out. */
const MAX_ZTUNNELS = 4;
const LISTEN_STATE = 10;
const STEERED: readonly number[] = [ZTUNNEL_PORT.outbound, ZTUNNEL_PORT.inboundPlaintext];

export class ZtunnelHooks {
  /** Hooked cgroups, newest first. */
  #hooked: Cgroup[] = [];
  /** Cgroup ids of sockets that are known to lie below a hooked one. */
  readonly #known = new Set<bigint>();
  #newestSlot: 0 | 1 = 0;
  /** The agent's own cgroup while it plays ztunnel in the self-test. */
  #guest: Cgroup | undefined;
  /** False while the kernel may have been told something else than what is here. */
  #told = true;

  constructor(
    private readonly binding: NativeBinding,
    private readonly bpf: BpfNode,
    private readonly cgroups: Cgroups,
    private readonly logger: Logger,
  ) {}

  /** Takes over what an earlier agent hooked, and forgets cgroups that are gone. */
  adopt(): void {
    // Between two ztunnels the newer one gets the connections; which that is, only the kernel remembers.
    this.#newestSlot = this.bpf.stateRead().newestSlot;
    const found: Cgroup[] = [];
    for (const pin of this.bpf.pins(PINS)) {
      const link = this.bpf.link(`${PINS}/${pin}/getsockopt`);
      if (link === undefined || link.target === 0n) {
        this.bpf.unpin(`${PINS}/${pin}`);
        continue;
      }
      // Not found is not gone: a walk over a large tree may end before it. Its hooks go on as they are.
      const cgroup = this.cgroups.withId(link.target);
      if (cgroup !== undefined) found.push(cgroup);
    }
    const isNewest = (cgroup: Cgroup) => this.#slotOf(cgroup) === this.#newestSlot;
    // One without a slot is one that an agent was hooking when it was killed.
    const free = found.some(isNewest) ? other(this.#newestSlot) : this.#newestSlot;
    for (const cgroup of [...found.filter((one) => !isNewest(one)), ...found.filter(isNewest)]) {
      this.#attach(cgroup, this.#slotOf(cgroup) ?? free);
    }
    this.#publish();
  }

  /** Before anything is sent to a ztunnel: from its first listen() on, its listeners are known. */
  meet(peer: ZtunnelPeer): void {
    const found = this.cgroups.ofPeer(peer);
    if (found.length === 0) {
      this.logger.info("the cgroup of this ztunnel is not known yet; its first listener will tell", {
        connection: peer.connection,
      });
    }
    for (const cgroup of found) this.hook(cgroup);
  }

  /** Hooks the pod of a cgroup. Idempotent. @throws NativeError. */
  hook(cgroup: Cgroup): void {
    const pod = this.cgroups.podOf(cgroup);
    if (this.#hooked[0]?.id !== pod.id || !this.#told) {
      const others = this.#hooked.filter(({ id }) => id !== pod.id);
      const [newest] = this.#hooked;
      const slot = newest === undefined || newest.id === pod.id ? this.#newestSlot : other(this.#newestSlot);
      // Noted first: what is refused now is missing, and is made up for.
      this.#told = false;
      this.#hooked = [pod, ...others];
      this.#newestSlot = this.#slotOf(pod) ?? slot;
      if (this.#isUnhooked(pod)) {
        this.#attach(pod, this.#newestSlot);
        this.logger.info("ztunnel's cgroup is hooked", { cgroup: pod.path });
      }
      this.#publish();
      this.collect();
    }
    this.#known.add(cgroup.id);
  }

  /** Sentences about what is not attached any more, though its ztunnel is there, or not told. No fork. */
  missing(): string[] {
    const unhooked = this.#unhooked().map(
      ({ path }) => `the programs for ztunnel are not attached to its cgroup (${path})`,
    );
    return this.#told ? unhooked : [...unhooked, "the programs don't know the cgroups of all ztunnels"];
  }

  /** Attaches what is missing. Idempotent. @throws NativeError. */
  ensure(): void {
    if (this.#unhooked().length > 0) this.collect();
    const unhooked = this.#unhooked();
    for (const cgroup of unhooked) {
      const slot = cgroup === this.#hooked[0] ? this.#newestSlot : other(this.#newestSlot);
      this.#attach(cgroup, this.#slotOf(cgroup) ?? slot);
    }
    if (unhooked.length > 0 || !this.#told) this.#publish();
  }

  /** Forgets cgroups that are gone. */
  collect(): void {
    const gone = this.#hooked.filter(({ id }) => {
      const link = this.bpf.link(`${PINS}/${id}/getsockopt`);
      // A pin that somebody else has removed says nothing about the cgroup.
      return link === undefined ? this.cgroups.withId(id) === undefined : link.target !== id;
    });
    const many = this.#hooked.filter((cgroup) => !gone.includes(cgroup)).slice(MAX_ZTUNNELS);
    for (const { id } of [...gone, ...many]) this.bpf.unpin(`${PINS}/${id}`);
    if (gone.length + many.length === 0) return;
    this.#hooked = this.#hooked.filter((cgroup) => !gone.includes(cgroup) && !many.includes(cgroup));
    this.#known.clear();
    this.#publish();
  }

  /**
   * Makes sure that open listeners of ztunnel's in this netns are steered to. Without any there is nothing
   * to do: connections are refused until one comes. @throws AgentError ZTUNNEL_CGROUP.
   */
  ensureListeners(netns: number, cookie: bigint): void {
    if (this.#told && STEERED.every((port) => this.bpf.hasListener(cookie, port))) return;
    const open = this.#listeners(netns);
    if (open.length === 0) return;
    const cgroups = [...new Set(open.map(({ cgroupId }) => cgroupId))];
    for (const id of cgroups) this.#learn(id);
    this.bpf.adoptListeners(netns, cgroups);
    for (const { srcPort } of open) {
      if (this.bpf.hasListener(cookie, srcPort)) continue;
      throw new AgentError("ZTUNNEL_LISTENER", `ztunnel's listener on port ${srcPort} can't be steered to`);
    }
  }

  /** Takes the agent itself for a ztunnel until the returned function is called. */
  playedBy(own: Cgroup): () => void {
    const links = ["ambient_getsockopt", "ambient_listen0"].map((program) => this.bpf.holdCgroup(program, own.path));
    const end = () => {
      this.#guest = undefined;
      try {
        this.#publish();
      } finally {
        for (const link of links) this.binding.close(link);
      }
    };
    this.#guest = own;
    try {
      this.#publish();
    } catch (error) {
      end();
      throw error;
    }
    return end;
  }

  get hooked(): readonly Cgroup[] {
    return this.#hooked;
  }

  /** False where ztunnel shares its cgroup with pods: only its mark tells it then. */
  get toldByCgroup(): boolean {
    const pods = this.cgroups.pods();
    return this.#hooked.length > 0 && this.#hooked.every((cgroup) => !isWithin(pods, cgroup));
  }

  #unhooked(): Cgroup[] {
    return this.#hooked.filter((cgroup) => this.#isUnhooked(cgroup));
  }

  #isUnhooked(cgroup: Cgroup): boolean {
    return this.bpf.link(`${PINS}/${cgroup.id}/getsockopt`) === undefined || this.#slotOf(cgroup) === undefined;
  }

  #listeners(netns: number): SocketInfo[] {
    return this.binding
      .sockets(netns, { protocol: "tcp", states: [LISTEN_STATE] })
      .filter(({ srcPort, mark }) => mark === ZTUNNEL_MARK && STEERED.includes(srcPort));
  }

  #learn(id: bigint): void {
    if (this.#known.has(id)) return;
    const cgroup = this.cgroups.withId(id);
    if (cgroup === undefined) {
      throw new AgentError("ZTUNNEL_CGROUP", `ztunnel's cgroup (id ${id}) can't be found in the node's hierarchy`);
    }
    this.hook(cgroup);
  }

  #attach(cgroup: Cgroup, slot: 0 | 1): void {
    // The answer first: a listener that is known gets connections at once.
    this.bpf.linkCgroup("ambient_getsockopt", cgroup.path, `${PINS}/${cgroup.id}/getsockopt`);
    this.bpf.linkCgroup(`ambient_listen${slot}`, cgroup.path, `${PINS}/${cgroup.id}/listen${slot}`);
    if (!this.#hooked.some(({ id }) => id === cgroup.id)) this.#hooked.unshift(cgroup);
  }

  #slotOf({ id }: Cgroup): 0 | 1 | undefined {
    return ([0, 1] as const).find((slot) => this.bpf.link(`${PINS}/${id}/listen${slot}`) !== undefined);
  }

  #publish(): void {
    this.#told = false;
    try {
      const guest = this.#guest === undefined ? [] : [this.#guest.id];
      this.bpf.ztunnelsWrite([...guest, ...this.#hooked.map(({ id }) => id)]);
      this.bpf.stateWrite({ newestSlot: this.#newestSlot, ztunnelByCgroup: this.toldByCgroup ? 1 : 0 });
      this.#told = true;
    } catch (error) {
      this.logger.error("ztunnel's cgroups can't be told to the programs", { reason: messageOf(error) });
      throw error;
    }
  }
}

function other(slot: 0 | 1): 0 | 1 {
  return slot === 0 ? 1 : 0;
}
