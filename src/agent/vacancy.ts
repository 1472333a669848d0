// SPDX-License-Identifier: Apache-2.0
import { AgentError } from "../core/errors.ts";
import type { CaptureSpec } from "../core/ports/dataplane.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { Enrollment } from "./enrollment.ts";
import type { NetnsLookup } from "./netns-lookup.ts";
import type { Parts } from "./parts.ts";

/** A pod's sandbox is taken down before the API says that the pod is gone: nothing is wrong with it then. */
export class Vacancy {
  /** `trigger`: has a pass made of a pod. */
  constructor(
    private readonly parts: Pick<Parts, "finder" | "decisions">,
    private readonly lookup: NetnsLookup,
    private readonly trigger: (uid: string) => void,
  ) {}

  /**
   * Whether nothing can be done for the pod in this netns. What takes the addresses of a pod whose processes go on
   * is another matter. @throws AgentError ADDRESS_LOST
   */
  async isGoing(enrollment: Enrollment, netns: NetnsHandle, spec: CaptureSpec): Promise<boolean> {
    const { finder } = this.parts;
    // A sandbox that is being made has no process yet.
    const vacated = !enrollment.servesCniAdd && finder.missing(netns, spec.ips).length === spec.ips.length;
    enrollment.going = vacated && (enrollment.pod.deleting || !(await finder.inhabited()).has(netns.id));
    if (!vacated) return false;
    const addresses = enrollment.ips.join(", ");
    if (!enrollment.going) {
      // It never had them, as with gVisor: no engine will take it, and says so.
      if (!enrollment.wasCaptured) return false;
      throw new AgentError(
        "ADDRESS_LOST",
        `none of the addresses of ${enrollment.name} (${addresses}) is on an interface of its netns any more, and its processes go on`,
        "look for what has taken the pod's interface or its address away; its rules stay as they are",
      );
    }
    this.note(enrollment, `${addresses} is on no interface of its netns any more`);
    if (!enrollment.pod.deleting) await this.offerNext(enrollment, netns);
    return true;
  }

  /** Nothing is to be done but to wait for what the API says. */
  note(enrollment: Enrollment, detail: string): void {
    enrollment.going = true;
    enrollment.failure = undefined;
    this.parts.decisions.note(enrollment, { what: "sandbox gone", detail });
  }

  /** It may live in its next sandbox already, whose ADD came when it did not belong to the mesh. */
  private async offerNext(enrollment: Enrollment, gone: NetnsHandle): Promise<void> {
    const next = await this.lookup.find(enrollment.pod);
    // What an ADD has brought meanwhile is newer than what /proc showed.
    if (next === undefined || next.id === gone.id || enrollment.inCniAdd) return next?.close();
    enrollment.offerNetns(next);
    this.trigger(enrollment.uid);
  }
}
