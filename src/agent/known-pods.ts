// SPDX-License-Identifier: Apache-2.0
import { messageOf } from "../core/errors.ts";
import type { Pod } from "../core/pod.ts";
import type { Enrollment } from "./enrollment.ts";
import type { Parts } from "./parts.ts";
import type { Roster } from "./roster.ts";

/** How long the API server gets to say whether a pod is still there, in ms. */
const READ_MS = 3000;

/** Which pods there are: the cache's, and those that CNI requests have read live before the cache has them. */
export class KnownPods {
  constructor(
    private readonly parts: Pick<Parts, "cluster" | "logger">,
    private readonly roster: Roster,
  ) {}

  /** As far as is known without asking. */
  known(uid: string): Pod | undefined {
    const enrollment = this.roster.get(uid);
    const admitted = enrollment !== undefined && Date.now() < enrollment.admittedUntil;
    return this.parts.cluster.pod(uid) ?? (admitted ? enrollment.pod : undefined);
  }

  /** undefined: it is gone. */
  async current(uid: string): Promise<Pod | undefined> {
    return this.known(uid) ?? (await this.readAgain(this.roster.get(uid)));
  }

  /**
   * One that was read live and has not come by the watch in all this time: a watch may be silent for minutes before
   * it is given up, and the pod runs.
   */
  private async readAgain(enrollment: Enrollment | undefined): Promise<Pod | undefined> {
    if (enrollment === undefined || enrollment.admittedUntil === 0) return undefined;
    const { cluster, logger } = this.parts;
    const { uid, namespace, name } = enrollment.pod;
    let live: Pod | undefined = enrollment.pod;
    try {
      live = await cluster.readPod(namespace, name, AbortSignal.timeout(READ_MS));
    } catch (error) {
      // Not knowing is no reason to change.
      logger.warn("whether a pod is still there is not known", { pod: enrollment.name, error: messageOf(error) });
    }
    // Also when the watch has told of its end meanwhile.
    if (live?.uid !== uid || enrollment.admittedUntil === 0) return undefined;
    enrollment.admit();
    return live;
  }
}
