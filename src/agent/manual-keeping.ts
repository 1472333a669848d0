// SPDX-License-Identifier: Apache-2.0
import { AgentError, messageOf } from "../core/errors.ts";
import { type Pod, podKey } from "../core/pod.ts";
import type { ManualClaim } from "../core/ports/manual.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { ExemptPod } from "../core/ports/probes.ts";
import { eligibilityOf, exemptibleIps } from "./desire.ts";
import type { Enrollment } from "./enrollment.ts";
import { admitted, manualSpec, netnsAt } from "./manual-pod.ts";
import type { ManualRecord } from "./manual-record.ts";
import type { Parts } from "./parts.ts";
import type { Roster } from "./roster.ts";

/** Whose probes are let through, from the start on. */
type Owners = Map<string, ExemptPod & { readonly netns: NetnsHandle }>;

/** What becomes of captures by hand while time goes on: agents follow each other, netns end or become a pod's. */
export class ManualKeeping {
  constructor(
    private readonly parts: Parts,
    private readonly roster: Roster,
    private readonly record: ManualRecord,
    private readonly work: {
      /** Has a pass made of it. */
      readonly trigger: (uid: string) => void;
      /** Nothing can be in use of it any more. */
      readonly giveUp: (enrollment: Enrollment) => Promise<void>;
    },
  ) {}

  /** What an agent before this one captured and the kernel still shows; what it only began is undone. */
  async adopt(owners: Owners): Promise<void> {
    const found = await this.record.read();
    for (const claim of found) this.#adopt(claim, owners);
    if (found.length > 0) await this.record.trySave();
  }

  /**
   * With what a sweep has found: a pod's labels decide about its netns from here on, and a netns that no path and no
   * process leads to any more is given up.
   */
  async contest(): Promise<void> {
    await this.record.catchUp();
    const captures = [...this.roster.all()].filter(({ manual }) => manual !== undefined);
    const unseen = this.record.unseen();
    if (captures.length + unseen.length === 0) return;
    const { cluster, finder, logger } = this.parts;
    const found = await finder.find([...cluster.pods()]);
    const owners = new Map([...found].map(([uid, netns]) => [netns.id, uid]));
    for (const netns of found.values()) netns.close();
    const inhabited = await finder.inhabited();
    for (const enrollment of captures) {
      const { manual, netns, uid } = enrollment;
      if (manual === undefined || netns === undefined || manual.state === "leaving") continue;
      const pod = cluster.pod(owners.get(netns.id) ?? "");
      const taken = pod !== undefined && this.#isOutside(pod);
      if (taken) {
        const message = "what was captured by hand is a pod's now, whose labels say otherwise";
        logger.warn(message, { pod: podKey(pod), netns: netns.id });
        enrollment.manual = { ...manual, state: "leaving" };
        await this.record.trySave();
        this.work.trigger(uid);
      } else if (pod === undefined && !inhabited.has(netns.id) && netnsAt(finder, manual.netns) !== manual.netnsId) {
        await this.work.giveUp(enrollment);
      }
    }
    for (const claim of unseen) {
      if (inhabited.has(claim.netnsId)) this.#adopt(claim);
      else this.record.settle(claim.netnsId);
    }
    if (this.record.unseen().length < unseen.length) await this.record.trySave();
  }

  /** An experiment must not keep the agent from its pods: what can't be seen is kept for later. */
  #adopt(claim: ManualClaim, owners: Owners = new Map()): void {
    try {
      this.#see(claim, owners);
      this.record.settle(claim.netnsId);
      this.work.trigger(claim.uid);
    } catch (error) {
      this.roster.remove(claim.uid);
      if (!this.record.keepUnseen(claim)) return;
      const reason = messageOf(error);
      this.parts.logger.warn("what was captured by hand can't be seen, and stays as it is", { reason });
    }
  }

  /** @throws AgentError MANUAL_MOVED; what reading the kernel throws */
  #see(claim: ManualClaim, owners: Owners): void {
    const { finder, dataplane, logger, config } = this.parts;
    const netns = finder.open(claim.netns);
    if (netns.id !== claim.netnsId) {
      netns.close();
      throw new AgentError("MANUAL_MOVED", `${claim.netns} leads to another network namespace than before`);
    }
    if (!present(() => dataplane.present(netns), netns)) {
      logger.info("what was captured by hand is gone", { netns: claim.netns });
      return;
    }
    const enrollment = admitted(this.roster, claim, netns);
    const spec = manualSpec(config, claim, claim.engine ?? undefined);
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

  /** Known to be: a namespace that is not known yet decides nothing. */
  #isOutside(pod: Pod): boolean {
    const { verdict, reason } = eligibilityOf(this.parts.config, this.parts.cluster, pod);
    return verdict !== "ambient" && reason !== "namespace-unknown";
  }
}

/** Closes the netns unless something of ours is in it. */
function present(look: () => boolean, netns: NetnsHandle): boolean {
  let found = false;
  try {
    found = look();
    return found;
  } finally {
    if (!found) netns.close();
  }
}
