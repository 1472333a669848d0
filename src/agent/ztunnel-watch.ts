// SPDX-License-Identifier: Apache-2.0
import { messageOf } from "../core/errors.ts";
import type { NetnsHandle, NetnsId } from "../core/ports/netns.ts";
import type { ZtunnelListener, ZtunnelPeer } from "../core/ports/ztunnel.ts";
import type { Parts } from "./parts.ts";
import type { Reconciler } from "./reconciler.ts";
import type { Roster } from "./roster.ts";

/** Pods whose listeners are read again without a pause: some milliseconds. */
const PORTION = 16;

/** What comes and goes at the ZDS socket, and what it means for the pods and their capture. */
export class ZtunnelWatch implements ZtunnelListener {
  constructor(
    private readonly parts: Parts,
    private readonly roster: Roster,
    private readonly reconciler: Reconciler,
  ) {}

  met(peer: ZtunnelPeer): void {
    this.parts.dataplane.meet(peer);
    try {
      this.parts.ztunnelProcesses.met(peer);
    } catch (error) {
      this.parts.logger.info("the process of this ztunnel is not known", { reason: messageOf(error) });
    }
  }

  parted(): void {
    void this.readListeners();
  }

  /** Told before the add's caller goes on, so that capture, which comes next, finds the listeners known. */
  acked(uid: string, connection: number, netns: NetnsId | undefined): void {
    const enrollment = this.roster.get(uid);
    if (enrollment === undefined || netns === undefined) return;
    enrollment.ackedNetns = netns;
    enrollment.ackedConnection = connection;
    this.parts.decisions.note(enrollment, { what: "ztunnel acked", detail: `connection ${connection}` });
    if (enrollment.netns?.id === netns) this.parts.dataplane.listenersOpened(enrollment.netns);
    if (enrollment.state !== "enrolled" || enrollment.failure !== undefined) this.reconciler.queue.inform(uid);
  }

  refused(uid: string, _connection: number, reason: string): void {
    const enrollment = this.roster.get(uid);
    if (enrollment === undefined) return;
    enrollment.ackedNetns = undefined;
    this.parts.decisions.note(enrollment, { what: "ztunnel refused", detail: `${reason}; it tries again by itself` });
  }

  changed(): void {
    const connections = this.parts.ztunnel.connections();
    const ready = connections.some((connection) => connection.ready);
    if (ready) {
      for (const { uid, state, acked, served } of this.roster.all()) {
        // Also what is captured and was in no snapshot: its netns was found only after that was cut.
        if (state === "pending" || (served && !acked)) this.reconciler.queue.trigger(uid);
      }
    } else {
      // The next ztunnel gets them all in its snapshot; what it has acked of that already counts.
      const live = new Set<number | undefined>(connections.map(({ id }) => id));
      for (const enrollment of this.roster.all()) {
        if (!live.has(enrollment.ackedConnection)) enrollment.ackedNetns = undefined;
      }
    }
  }

  /** The one that has gone took its listeners along; where another's are left, those serve from here on. */
  private async readListeners(): Promise<void> {
    let count = 0;
    for (const enrollment of [...this.roster.all()]) {
      const netns: NetnsHandle | undefined = enrollment.netns;
      if (netns === undefined || enrollment.state === "pending") continue;
      this.parts.dataplane.listenersOpened(netns);
      count += 1;
      if (count % PORTION === 0) await new Promise((resolve) => setImmediate(resolve));
    }
  }
}
