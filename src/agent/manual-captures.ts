// SPDX-License-Identifier: Apache-2.0
import { AgentError, codeOf, messageOf } from "../core/errors.ts";
import type { CaptureSpec, EngineName } from "../core/ports/dataplane.ts";
import type { ManualClaim, ManualRequest } from "../core/ports/manual.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { Enroller } from "./enroll.ts";
import { Enrollment } from "./enrollment.ts";
import { ManualKeeping } from "./manual-keeping.ts";
import { admitted, manualSpec, netnsAt, podOf } from "./manual-pod.ts";
import { ManualRecord } from "./manual-record.ts";
import { ManualTerms } from "./manual-terms.ts";
import type { Parts } from "./parts.ts";
import type { KeyedQueue } from "./queue.ts";
import type { Roster } from "./roster.ts";
import type { Unenroller } from "./unenroll.ts";

/** How often open proxied connections are counted while one leaves, in ms. */
const DRAIN_POLL_MS = 100;
/** What of a netns' processes need not be in a cgroup of the pods' to be captured comes first. */
const PREFERENCE: readonly EngineName[] = ["nftables", "iptables", "ebpf"];

type Released = "released" | "draining" | "nothing";

export interface ManualWorkers {
  readonly enroller: Enroller;
  readonly unenroller: Unenroller;
  /** One pass at a time per capture, as for pods. */
  readonly queue: () => KeyedQueue;
  /** Has every change in its netns lead to a pass. */
  readonly watch: (enrollment: Enrollment) => void;
  /** It is counted no more. */
  readonly forget: (uid: string) => void;
}

/**
 * Network namespaces that somebody captures by hand. They are enrolled, repaired and released as pods are, but no
 * label decides: so none may belong to a pod, whose labels are the only truth about it. What was asked for is kept
 * in a file for the next agent; whether it is so, the kernel says.
 */
export class ManualCaptures {
  readonly record: ManualRecord;
  readonly keeping: ManualKeeping;
  private readonly terms: ManualTerms;

  constructor(
    private readonly parts: Parts,
    private readonly roster: Roster,
    private readonly workers: ManualWorkers,
  ) {
    this.terms = new ManualTerms(parts, roster);
    this.record = new ManualRecord(parts, () => this.all().flatMap(({ manual }) => manual ?? []));
    this.keeping = new ManualKeeping(parts, roster, this.record, {
      trigger: (uid) => workers.queue().trigger(uid),
      giveUp: (enrollment) => this.#giveUp(enrollment),
    });
  }

  all(): Enrollment[] {
    return [...this.roster.all()].filter(({ manual }) => manual !== undefined);
  }

  /**
   * Captures the netns, or leaves it as it was.
   * @throws AgentError NETNS_* | AMBIENT_OFF | MANUAL_*; NETNS_OF_POD where labels decide; what an enrolment throws
   */
  async enroll(request: ManualRequest): Promise<Enrollment> {
    const enrollment = await this.record.serial(async () => {
      const prepared = await this.examine(request);
      try {
        await this.record.claim(prepared.claim);
      } catch (error) {
        prepared.netns.close();
        throw error;
      }
      const claimed = admitted(this.roster, prepared.claim, prepared.netns);
      claimed.spec = prepared.spec;
      return claimed;
    });
    try {
      await this.workers.queue().run(enrollment.uid);
      if (enrollment.state !== "enrolled" || !this.#has(enrollment)) {
        throw new AgentError("MANUAL_LOST", `${enrollment.uid} was released while it was being captured`);
      }
      if (enrollment.manual?.state === "capturing") await this.#become(enrollment, "captured");
      return enrollment;
    } catch (error) {
      await this.#leave(enrollment).catch((reason: unknown) => {
        this.parts.logger.error("undoing a capture by hand", { pod: enrollment.name, reason: messageOf(reason) });
      });
      throw error;
    }
  }

  /** What `enroll` would work on; the caller closes the netns. Changes nothing. @throws as `enroll`. */
  async examine(
    request: ManualRequest,
  ): Promise<{ readonly claim: ManualClaim; readonly netns: NetnsHandle; readonly spec: CaptureSpec }> {
    const { config, finder, dataplane } = this.parts;
    if (!config.ambientEnabled) throw new AgentError("AMBIENT_OFF", "ambient is off on this node (AMBIENT_ENABLED)");
    const netns = finder.open(request.netns);
    try {
      const claim = this.#claimOf(request, netns);
      await this.terms.require(claim, netns);
      const wish = request.engine ?? PREFERENCE.find((name) => dataplane.tests.some((one) => works(one, name)));
      const spec = manualSpec(config, claim, wish);
      const engine = dataplane.engineFor(netns, spec);
      if (request.engine !== null && engine !== request.engine) {
        throw new AgentError(
          "MANUAL_ENGINE",
          `this netns can't be captured by ${request.engine}, only by ${engine}`,
          "`ambient-cni engines` says what works on this node",
        );
      }
      return { claim, netns, spec };
    } catch (error) {
      netns.close();
      throw error;
    }
  }

  /** As it would be enrolled, and nobody is told of it. */
  imagine(claim: ManualClaim): Enrollment {
    const enrollment = new Enrollment(podOf(claim));
    enrollment.manual = claim;
    return enrollment;
  }

  /** Takes out what was captured by hand. @throws AgentError NETNS_*; NETNS_OF_POD where labels decide */
  async unenroll(path: string): Promise<Released> {
    const enrollment = await this.#find(path);
    if (enrollment === undefined) return await this.#clean(path);
    await this.#leave(enrollment);
    return this.#has(enrollment) ? "draining" : "released";
  }

  /** What `unenroll` would come to now. Changes nothing. @throws as `unenroll`. */
  async wouldUnenroll(path: string): Promise<Released> {
    const { finder, dataplane } = this.parts;
    const enrollment = await this.#find(path);
    if (enrollment !== undefined) {
      const { netns } = enrollment;
      return netns !== undefined && dataplane.proxiedConnections(netns) > 0 ? "draining" : "released";
    }
    using netns = finder.open(path);
    await this.terms.requireUnowned(netns);
    return dataplane.present(netns) ? "released" : "nothing";
  }

  /** One pass: what was asked for and what is, brought together. Only the queue calls it. */
  async pass(enrollment: Enrollment, claim: ManualClaim): Promise<void> {
    const { netns } = enrollment;
    if (netns === undefined) return await this.#drop(enrollment);
    if (this.#ownerInRoster(enrollment) !== undefined) {
      // A pod of the mesh has this netns now: what is in it is that pod's.
      return await this.#giveUp(enrollment);
    }
    if (claim.state === "leaving" || !this.parts.config.ambientEnabled) return await this.#release(enrollment, netns);
    try {
      await this.workers.enroller.enroll(enrollment, netns, enrollment.spec ?? manualSpec(this.parts.config, claim));
      enrollment.failure = undefined;
    } catch (error) {
      enrollment.failure = { code: codeOf(error), message: messageOf(error), since: Date.now() };
      throw error;
    }
    this.workers.watch(enrollment);
  }

  async #leave(enrollment: Enrollment): Promise<void> {
    if (!this.#has(enrollment)) return;
    if (enrollment.manual !== undefined) enrollment.manual = { ...enrollment.manual, state: "leaving" };
    await this.record.trySave();
    await this.workers.queue().run(enrollment.uid);
  }

  async #release(enrollment: Enrollment, netns: NetnsHandle): Promise<void> {
    const { clock } = this.parts;
    const done = await this.workers.unenroller.unenroll(enrollment, netns, async () => undefined);
    if (done) return await this.#drop(enrollment);
    enrollment.lookAgain(() => clock.after(DRAIN_POLL_MS, () => this.workers.queue().trigger(enrollment.uid)));
  }

  /** Nobody remembers it, but something of ours may be in it. */
  async #clean(path: string): Promise<"released" | "nothing"> {
    const { finder, dataplane } = this.parts;
    using netns = finder.open(path);
    await this.terms.requireUnowned(netns);
    if (!dataplane.present(netns)) return "nothing";
    await dataplane.release(netns);
    return "released";
  }

  async #find(path: string): Promise<Enrollment | undefined> {
    const id = netnsAt(this.parts.finder, path);
    // A path that is gone names what it led to.
    return this.all().find(({ netns, manual }) => (id === undefined ? manual?.netns === path : netns?.id === id));
  }

  #ownerInRoster({ netns, uid }: Enrollment): Enrollment | undefined {
    return [...this.roster.all()].find(
      (other) => other.uid !== uid && other.manual === undefined && other.netns?.id === netns?.id,
    );
  }

  #has(enrollment: Enrollment): boolean {
    return this.roster.get(enrollment.uid) === enrollment;
  }

  async #giveUp(enrollment: Enrollment): Promise<void> {
    await this.workers.unenroller.forget(enrollment);
    await this.#drop(enrollment);
  }

  async #drop(enrollment: Enrollment): Promise<void> {
    if (this.#has(enrollment)) this.roster.remove(enrollment.uid);
    this.workers.forget(enrollment.uid);
    await this.record.trySave();
  }

  async #become(enrollment: Enrollment, state: ManualClaim["state"]): Promise<void> {
    if (enrollment.manual !== undefined) enrollment.manual = { ...enrollment.manual, state };
    await this.record.save();
  }

  #claimOf(request: ManualRequest, netns: NetnsHandle): ManualClaim {
    const inode = netns.id.split(":").at(-1) ?? netns.id;
    return { ...request, uid: `manual-${inode}`, netnsId: netns.id, state: "capturing" };
  }
}

function works(test: { readonly engine: EngineName; readonly works: boolean }, name: EngineName): boolean {
  return test.engine === name && test.works;
}
