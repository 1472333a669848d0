// SPDX-License-Identifier: Apache-2.0
import { messageOf } from "../core/errors.ts";
import type { StuckSign, ZtunnelStuck } from "../core/ports/ztunnel.ts";
import type { Enrollment } from "./enrollment.ts";
import type { Parts } from "./parts.ts";
import type { Roster } from "./roster.ts";

/** Between two looks, in ms. */
const PULSE_MS = 1000;
/** All pods are looked at every so many looks; those where connections wait, at each. 200 of them take some 20 ms. */
const ALL_EVERY = 4;
/** A sign counts once it has been seen for so long, in ms, at three looks: nobody accepts at every instant. */
const STUCK_MS = 3000;
const STUCK_LOOKS = 3;
/** Pods that are looked at without a pause. */
const PORTION = 16;
/** In `status`. */
const SHOWN = 32;
/** In a line of the log; the metric counts all. */
const TOLD = 8;

interface Sign {
  readonly sign: StuckSign;
  /** undefined: of no pod. */
  readonly pod: string | undefined;
  readonly detail: string;
  /** On the clock of the parts, ms. */
  readonly since: number;
  readonly looks: number;
  readonly connections: number;
}

/**
 * Notices a ztunnel that does not answer. ZDS has no question for it, so this looks at what the kernel shows: a process
 * that is stopped, and connections at its listeners of which none is seen accepted: one that is
 * overloaded so far that its queues stay full looks the same. Nothing is sent to it, and a ztunnel that hangs
 * while nobody connects is not noticed.
 */
export class ZtunnelPulse {
  private signs = new Map<string, Sign>();
  private cancel: (() => void) | undefined;
  private turn = 0;
  private told = false;
  private looking = false;

  constructor(
    private readonly parts: Parts,
    private readonly roster: Roster,
    private readonly periodMs: number = PULSE_MS,
  ) {}

  start(): void {
    this.cancel = this.parts.clock.after(this.periodMs, () => {
      this.start();
      if (this.looking) return;
      this.looking = true;
      void this.look()
        .catch((error: unknown) => {
          this.parts.logger.error("looking for a ztunnel that hangs failed", { error: messageOf(error) });
        })
        .finally(() => {
          this.looking = false;
        });
    });
  }

  stop(): void {
    this.cancel?.();
  }

  /** Signs that have lasted, the oldest first. */
  stuck(): readonly ZtunnelStuck[] {
    const now = this.parts.clock.now();
    return this.lasting()
      .slice(0, SHOWN)
      .map(({ sign, detail, since }) => ({ sign, detail, seconds: Math.round((now - since) / 1000) }));
  }

  /** One look. */
  async look(): Promise<void> {
    const { clock, ztunnelProcesses, dataplane } = this.parts;
    const seen = new Map<string, Sign>();
    const note = (key: string, sign: Pick<Sign, "sign" | "pod" | "detail" | "connections">) => {
      const before = this.signs.get(key);
      // Whoever accepts makes the queue shorter: then it begins anew.
      const same = before !== undefined && sign.connections >= before.connections ? before : undefined;
      seen.set(key, { ...sign, since: same?.since ?? clock.now(), looks: (same?.looks ?? 0) + 1 });
    };
    for (const pid of ztunnelProcesses.stopped()) {
      note(`process ${pid}`, {
        sign: "process",
        pod: undefined,
        detail: `its process ${pid} is stopped`,
        connections: 0,
      });
    }
    this.turn += 1;
    const all = this.turn % ALL_EVERY === 0;
    const suspects = new Set([...this.signs.values()].map(({ pod }) => pod));
    let count = 0;
    for (const enrollment of [...this.roster.all()]) {
      const { netns, name } = enrollment;
      if (netns === undefined || !isServed(enrollment) || !(all || suspects.has(name))) continue;
      try {
        for (const { listener, port, connections } of dataplane.unaccepted(netns)) {
          const wait = connections === 1 ? "connection waits" : "connections wait";
          const detail = `at port ${port} in ${name} ${connections} ${wait}, and none is seen accepted`;
          note(`${netns.id} ${listener}`, { sign: "listener", pod: name, detail, connections });
        }
      } catch {
        // Gone since: its pass will say so.
      }
      count += 1;
      if (count % PORTION === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    this.signs = seen;
    this.tell();
  }

  private lasting(): readonly Sign[] {
    const now = this.parts.clock.now();
    return [...this.signs.values()]
      .filter(({ since, looks }) => looks >= STUCK_LOOKS && now - since >= STUCK_MS)
      .sort((a, b) => a.since - b.since);
  }

  private tell(): void {
    const { metrics, logger } = this.parts;
    const lasting = this.lasting();
    for (const sign of ["process", "listener"] as const) {
      metrics.set("ambient_cni_ztunnel_stuck", lasting.filter((one) => one.sign === sign).length, { sign });
    }
    if (this.told === lasting.length > 0) return;
    this.told = lasting.length > 0;
    if (this.told)
      logger.error("ztunnel does not answer", { signs: lasting.slice(0, TOLD).map(({ detail }) => detail) });
    else logger.info("ztunnel answers again");
  }
}

/** Its netns may have listeners of ztunnel's. */
function isServed({ state, served }: Enrollment): boolean {
  return served && state !== "pending";
}
