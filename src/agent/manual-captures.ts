// SPDX-License-Identifier: Apache-2.0
import { AgentError, codeOf, messageOf } from "../core/errors.ts";
import { type Pod, podKey } from "../core/pod.ts";
import type { CaptureSpec, EngineName } from "../core/ports/dataplane.ts";
import type { ManualClaim, ManualRequest } from "../core/ports/manual.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { ExemptPod } from "../core/ports/probes.ts";
import { captureSpec, eligibilityOf, exemptibleIps } from "./desire.ts";
import type { Enroller } from "./enroll.ts";
import { Enrollment } from "./enrollment.ts";
import { podOf } from "./manual-pod.ts";
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

interface Workers {
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
  /** Changes of the file, and decisions about what may be claimed, one after the other. */
  #last: Promise<unknown> = Promise.resolve();

  private readonly terms: ManualTerms;

  constructor(
    private readonly parts: Parts,
    private readonly roster: Roster,
    private readonly workers: Workers,
  ) {
    this.terms = new ManualTerms(parts, roster);
  }

  all(): Enrollment[] {
    return [...this.roster.all()].filter(({ manual }) => manual !== undefined);
  }

  /**
   * Captures the netns, or leaves it as it was.
   * @throws AgentError NETNS_* | AMBIENT_OFF | MANUAL_*; NETNS_OF_POD where labels decide; what an enrolment throws
   */
  async enroll(request: ManualRequest): Promise<Enrollment> {
    const enrollment = await this.#serial(async () => {
      const prepared = await this.examine(request);
      try {
        await this.parts.claims.write([...this.#claims(), prepared.claim]);
      } catch (error) {
        prepared.netns.close();
        throw error;
      }
      const claimed = this.#admit(prepared.claim, prepared.netns);
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
      const spec = this.#specOf(claim, wish);
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
      this.parts.decisions.note(enrollment, { what: "forgotten", detail: "its netns is a pod's now" });
      await this.#drop(enrollment);
      return;
    }
    if (claim.state === "leaving" || !this.parts.config.ambientEnabled) return await this.#release(enrollment, netns);
    try {
      await this.workers.enroller.enroll(enrollment, netns, enrollment.spec ?? this.#specOf(claim));
      enrollment.failure = undefined;
    } catch (error) {
      enrollment.failure = { code: codeOf(error), message: messageOf(error), since: Date.now() };
      throw error;
    }
    this.workers.watch(enrollment);
  }

  /** What an agent before this one captured and the kernel still shows; what it only began is undone. */
  async adopt(owners: Map<string, ExemptPod & { readonly netns: NetnsHandle }>): Promise<void> {
    const { claims, logger } = this.parts;
    let found: readonly ManualClaim[];
    try {
      found = await claims.read();
    } catch (error) {
      logger.error("what was captured by hand can't be read, and stays as it is", { reason: messageOf(error) });
      return;
    }
    const claimed = new Map(found.map((claim) => [claim.uid, claim]));
    for (const claim of claimed.values()) {
      // An experiment must not keep the agent from its pods.
      try {
        this.#adopt(claim, owners);
      } catch (error) {
        logger.error("what was captured by hand can't be read", { netns: claim.netns, reason: messageOf(error) });
        this.roster.remove(claim.uid);
      }
    }
    if (found.length > 0) await this.#save().catch((error: unknown) => this.#unsaved(error));
  }

  /**
   * With what a sweep has found: a pod's labels decide about its netns from here on, and a netns that no path and no
   * process leads to any more is given up.
   */
  async contest(): Promise<void> {
    const captures = this.all();
    if (captures.length === 0) return;
    const pods = [...this.parts.cluster.pods()];
    const found = await this.parts.finder.find(pods);
    const owners = new Map([...found].map(([uid, netns]) => [netns.id, uid]));
    for (const netns of found.values()) netns.close();
    const inhabited = await this.parts.finder.inhabited();
    for (const enrollment of captures) {
      const id = enrollment.netns?.id;
      if (id === undefined || enrollment.manual === undefined) continue;
      const pod = this.parts.cluster.pod(owners.get(id) ?? "");
      if (pod !== undefined && this.#isOutside(pod)) {
        this.parts.logger.warn("what was captured by hand is a pod's now, whose labels say otherwise", {
          pod: podKey(pod),
          netns: id,
        });
        await this.#become(enrollment, "leaving");
      } else if (pod === undefined && !inhabited.has(id) && !this.#leadsTo(enrollment.manual)) {
        await this.workers.unenroller.forget(enrollment);
        await this.#drop(enrollment);
      }
    }
  }

  #adopt(claim: ManualClaim, owners: Map<string, ExemptPod & { readonly netns: NetnsHandle }>): void {
    const { finder, dataplane, logger, config } = this.parts;
    const netns = attempt(() => finder.open(claim.netns));
    if (netns === undefined || netns.id !== claim.netnsId || !dataplane.present(netns)) {
      netns?.close();
      logger.info("what was captured by hand is gone", { netns: claim.netns });
      return;
    }
    const enrollment = this.#admit(claim, netns);
    const spec = this.#specOf(claim, claim.engine ?? undefined);
    const { engine, mode: plainMode } = dataplane.observe(netns, spec);
    // Nobody asked for another one: the engine that captures it goes on.
    const other = plainMode !== "captured" && claim.engine === null && engine !== undefined;
    enrollment.spec = other ? { ...spec, engine } : spec;
    const { mode } = other ? dataplane.observe(netns, enrollment.spec) : { mode: plainMode };
    enrollment.engine = engine;
    if (claim.state === "capturing") {
      enrollment.manual = { ...claim, state: mode === "captured" ? "captured" : "leaving" };
    }
    if (mode !== "absent") enrollment.capturedNetns = netns.id;
    enrollment.exemptIps = exemptibleIps(config, claim.ips);
    owners.set(claim.uid, { uid: claim.uid, ips: enrollment.exemptIps, engine: engine ?? dataplane.engine, netns });
    if (mode !== "captured") return;
    enrollment.state = "enrolled";
    enrollment.adopted = true;
    enrollment.enrolledAt = Date.now();
    this.parts.decisions.note(enrollment, { what: "adopted", engine });
  }

  async #leave(enrollment: Enrollment): Promise<void> {
    if (!this.#has(enrollment)) return;
    await this.#become(enrollment, "leaving").catch((error: unknown) => this.#unsaved(error));
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
    const id = attempt(() => {
      using netns = this.parts.finder.open(path);
      return netns.id;
    });
    // A path that is gone names what it led to.
    return this.all().find(({ netns, manual }) => (id === undefined ? manual?.netns === path : netns?.id === id));
  }

  #ownerInRoster({ netns, uid }: Enrollment): Enrollment | undefined {
    return [...this.roster.all()].find(
      (other) => other.uid !== uid && other.manual === undefined && other.netns?.id === netns?.id,
    );
  }

  /** Known to be: a namespace that is not known yet decides nothing. */
  #isOutside(pod: Pod): boolean {
    const { verdict, reason } = eligibilityOf(this.parts.config, this.parts.cluster, pod);
    return verdict !== "ambient" && reason !== "namespace-unknown";
  }

  #leadsTo({ netns: path, netnsId }: ManualClaim): boolean {
    return (
      attempt(() => {
        using netns = this.parts.finder.open(path);
        return netns.id;
      }) === netnsId
    );
  }

  #has(enrollment: Enrollment): boolean {
    return this.roster.get(enrollment.uid) === enrollment;
  }

  #admit(claim: ManualClaim, netns: NetnsHandle): Enrollment {
    const enrollment = this.roster.ensure(podOf(claim));
    enrollment.manual = claim;
    // Nobody else ever reads it: no pod of the API has it.
    enrollment.annotation = null;
    enrollment.adoptNetns(netns);
    return enrollment;
  }

  async #drop(enrollment: Enrollment): Promise<void> {
    if (this.#has(enrollment)) this.roster.remove(enrollment.uid);
    this.workers.forget(enrollment.uid);
    await this.#save().catch((error: unknown) => this.#unsaved(error));
  }

  /** The kernel decides: the next agent finds nothing of ours there, and believes that. */
  #unsaved(error: unknown): void {
    this.parts.logger.error("the record of captures by hand can't be written", { reason: messageOf(error) });
  }

  async #become(enrollment: Enrollment, state: ManualClaim["state"]): Promise<void> {
    if (enrollment.manual !== undefined) enrollment.manual = { ...enrollment.manual, state };
    await this.#save();
  }

  #save(): Promise<void> {
    return this.#serial(() => this.parts.claims.write(this.#claims()));
  }

  #claims(): ManualClaim[] {
    return this.all().flatMap(({ manual }) => manual ?? []);
  }

  #serial<T>(task: () => Promise<T>): Promise<T> {
    const run = this.#last.then(task);
    this.#last = run.catch(() => undefined);
    return run;
  }

  #claimOf(request: ManualRequest, netns: NetnsHandle): ManualClaim {
    const inode = netns.id.split(":").at(-1) ?? netns.id;
    return { ...request, uid: `manual-${inode}`, netnsId: netns.id, state: "capturing" };
  }

  #specOf(claim: ManualClaim, engine?: EngineName): CaptureSpec {
    const { config } = this.parts;
    const { spec } = captureSpec(config, podOf(claim), claim.ips, () => undefined);
    return { ...spec, pod: claim.uid, ...(engine === undefined ? {} : { engine }) };
  }
}

function works(test: { readonly engine: EngineName; readonly works: boolean }, name: EngineName): boolean {
  return test.engine === name && test.works;
}

function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
