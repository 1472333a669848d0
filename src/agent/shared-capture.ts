// SPDX-License-Identifier: Apache-2.0
import { messageOf } from "../core/errors.ts";
import type { Parts } from "./parts.ts";
import type { Roster } from "./roster.ts";

/**
 * What all pods of the node are captured by, besides what is in their netns. It is mended before a pod that differs
 * is compared: each pod would find the same thing missing, and one cause would be counted as drift of any of them.
 */
export class SharedCapture {
  constructor(
    private readonly parts: Pick<Parts, "dataplane" | "drift" | "logger">,
    private readonly roster: Roster,
    private readonly trigger: (uid: string) => void,
  ) {}

  /** Returns whether something was missing and is there again. No fork. Never throws: what fails is said. */
  mend(): boolean {
    const { dataplane, drift, logger } = this.parts;
    try {
      const missing = dataplane.mendShared();
      drift.unrepaired("hooks", undefined);
      if (missing.length === 0) return false;
      drift.repaired("hooks", undefined, missing.join("; "));
      logger.warn("what all pods are captured by was taken away; repaired", { missing });
      // Whoever took that may have taken what single pods have on the same file system: no event tells of it.
      for (const { uid } of this.roster.all()) this.trigger(uid);
      return true;
    } catch (error) {
      const message = messageOf(error);
      // Every pod that differs asks: it is news once.
      const news = drift.broken.get("hooks") !== message;
      drift.unrepaired("hooks", message);
      if (news) logger.error("what all pods are captured by can't be repaired", { error: message });
      return false;
    }
  }
}
