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
  /** Ids of cgroups that an earlier agent hooked and that are not found in the hierarchy. */
  #unfound: bigint[] = [];
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
      if (cgroup === undefined) this.#unfound.push(link.target);
      else found.push(cgroup);
    }
    const isNewest = (cgroup: Cgroup) => this.#slotOf(cgroup) === this.#newestSlot;
    this.#hooked = [...found.filter(isNewest), ...found.filter((one) => !isNewest(one))];
    for (const cgroup of this.#hooked) this.#attach(cgroup);
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
      // Noted first: what is refused now is missing, and is made up for.
      this.#told = false;
      this.#hooked = [pod, ...this.#hooked.filter(({ id }) => id !== pod.id)];
      if (this.#isUnhooked(pod)) {
        // From its first listen() on it may get connections, and those it makes for them are not to come back to it.
        this.#publish();
        this.#told = false;
        this.#attach(pod);
        this.logger.info("ztunnel's cgroup is hooked", { cgroup: pod.path });
      }
      this.#newestSlot = this.#slotOf(pod) ?? this.#newestSlot;
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
    if (!this.#told) this.#publish();
    const unhooked = this.#unhooked();
    for (const cgroup of unhooked) this.#attach(cgroup);
    const [newest] = this.#hooked;
    if (unhooked.length === 0 || newest === undefined) return;
    this.#newestSlot = this.#slotOf(newest) ?? this.#newestSlot;
    this.#publish();
  }

  /** Forgets cgroups that are gone. */
  collect(): void {
    const gone = this.#hooked.filter(({ id }) => {
      const link = this.bpf.link(`${PINS}/${id}/getsockopt`);
      // A pin that somebody else has removed says nothing about the cgroup.
      return link === undefined ? this.cgroups.withId(id) === undefined : link.target !== id;
    });
    const many = this.#hooked.filter((cgroup) => !gone.includes(cgroup)).slice(MAX_ZTUNNELS);
    const unfound = this.#unfound.filter((id) => this.bpf.link(`${PINS}/${id}/getsockopt`)?.target !== id);
    for (const id of [...[...gone, ...many].map((one) => one.id), ...unfound]) this.bpf.unpin(`${PINS}/${id}`);
    if (gone.length + many.length + unfound.length === 0) return;
    this.#unfound = this.#unfound.filter((id) => !unfound.includes(id));
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

  #attach(cgroup: Cgroup): void {
    const slot = this.#slotOf(cgroup) ?? this.#freeSlot(cgroup);
    // The answer first: a listener that is known gets connections at once.
    this.bpf.linkCgroup("ambient_getsockopt", cgroup.path, `${PINS}/${cgroup.id}/getsockopt`);
    this.bpf.linkCgroup(`ambient_listen${slot}`, cgroup.path, `${PINS}/${cgroup.id}/listen${slot}`);
  }

  /** Not that of the newest of the others. */
  #freeSlot({ id }: Cgroup): 0 | 1 {
    const newest = this.#hooked.find((one) => one.id !== id);
    if (newest === undefined) return this.#newestSlot;
    return (this.#slotOf(newest) ?? this.#newestSlot) === 0 ? 1 : 0;
  }

  #slotOf({ id }: Cgroup): 0 | 1 | undefined {
    return ([0, 1] as const).find((slot) => this.bpf.link(`${PINS}/${id}/listen${slot}`) !== undefined);
  }

  #publish(): void {
    this.#told = false;
    try {
      const guest = this.#guest === undefined ? [] : [this.#guest.id];
      this.bpf.ztunnelsWrite([...guest, ...new Set([...this.#hooked.map(({ id }) => id), ...this.#unfound])]);
      this.bpf.stateWrite({ newestSlot: this.#newestSlot, ztunnelByCgroup: this.toldByCgroup ? 1 : 0 });
      this.#told = true;
    } catch (error) {
      this.logger.error("ztunnel's cgroups can't be told to the programs", { reason: messageOf(error) });
      throw error;
    }
  }
}
