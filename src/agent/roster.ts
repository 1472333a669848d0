// SPDX-License-Identifier: Apache-2.0
import type { Pod } from "../core/pod.ts";
import type { SnapshotEntry } from "../core/ports/ztunnel.ts";
import { Enrollment } from "./enrollment.ts";

/** All enrollments of the node, by pod uid, and the snapshot that ztunnel gets from them. */
export class Roster {
  private readonly byUid = new Map<string, Enrollment>();

  get(uid: string): Enrollment | undefined {
    return this.byUid.get(uid);
  }

  ensure(pod: Pod): Enrollment {
    let enrollment = this.byUid.get(pod.uid);
    if (enrollment === undefined) {
      enrollment = new Enrollment(pod);
      this.byUid.set(pod.uid, enrollment);
    }
    enrollment.pod = pod;
    return enrollment;
  }

  /** Forgets the pod and closes its netns. */
  remove(uid: string): void {
    this.byUid.get(uid)?.dropNetns();
    this.byUid.delete(uid);
  }

  all(): IterableIterator<Enrollment> {
    return this.byUid.values();
  }

  get size(): number {
    return this.byUid.size;
  }

  /**
   * What a ztunnel that connects now must know. A pod whose netns we have not found is kept only if
   * it was captured before (its proxy may be running); a draining pod stays until its `del`.
   */
  snapshot(): SnapshotEntry[] {
    const entries: SnapshotEntry[] = [];
    for (const enrollment of this.byUid.values()) {
      if (enrollment.forgotten || !enrollment.served) continue;
      if (enrollment.netns === undefined && enrollment.annotation !== "enabled") continue;
      entries.push({ workload: enrollment.workload, netns: enrollment.netns });
    }
    return entries;
  }
}
