// SPDX-License-Identifier: Apache-2.0
import { REDIRECTION_ANNOTATION } from "../core/constants.ts";
import { AgentError, codeOf, messageOf } from "../core/errors.ts";
import type { Pod } from "../core/pod.ts";
import type { RedirectionState } from "../core/ports/cluster.ts";
import type { Enrollment } from "./enrollment.ts";
import type { Parts } from "./parts.ts";

/** The annotation as the API has it; a value that is not upstream's counts as absent. */
export function annotationOf(pod: Pod): RedirectionState | null {
  const value = pod.annotations[REDIRECTION_ANNOTATION];
  return value === "enabled" || value === "pending" ? value : null;
}

/** Tells the cluster where a pod stands: annotation and Events. Nobody waits for an Event. */
export class Announcer {
  constructor(private readonly parts: Parts) {}

  /**
   * Makes the annotation say `value`, with one PATCH only when it says something else. The cache may
   * be older than our own last patch, so what we wrote ourselves counts until the cache shows it.
   */
  async annotate(enrollment: Enrollment, value: RedirectionState | null): Promise<void> {
    const inCache = annotationOf(enrollment.pod);
    const stale = enrollment.patchedFrom !== undefined && enrollment.patchedFrom === enrollment.pod.resourceVersion;
    if (stale ? enrollment.annotation === value : inCache === value) {
      enrollment.annotation = value;
      return;
    }
    const { uid, namespace, name } = enrollment.pod;
    const began = performance.now();
    const result = await this.parts.cluster.annotate({ uid, namespace, name }, value);
    const milliseconds = performance.now() - began;
    this.parts.metrics.observe("ambient_cni_enroll_seconds", milliseconds / 1000, {
      engine: enrollment.engine ?? "none",
      phase: "annotate",
    });
    const reason = result === "gone" ? "gone" : (value ?? "removed");
    this.parts.decisions.note(enrollment, { what: "annotated", milliseconds, reason });
    enrollment.annotation = value;
    enrollment.patchedFrom = enrollment.pod.resourceVersion;
  }

  /** Notes a failed pass; an Event is posted when the failure is new or another one. */
  failed(enrollment: Enrollment, error: unknown, reason = "AmbientEnrollmentFailed"): void {
    const code = codeOf(error);
    const message = messageOf(error);
    const known = enrollment.failure?.code === code;
    enrollment.failure = { code, message, since: known ? (enrollment.failure?.since ?? Date.now()) : Date.now() };
    if (known) return;
    const remedy = error instanceof AgentError && error.remedy !== undefined ? ` (${error.remedy})` : "";
    void this.parts.cluster.event(enrollment.pod, {
      type: "Warning",
      reason,
      message: `${code}: ${message}${remedy}`,
    });
  }

  /** Says once what of the pod's settings or addresses is not heeded. */
  warn(enrollment: Enrollment, warnings: readonly string[]): void {
    const news = warnings.filter((warning) => !enrollment.warnings.includes(warning));
    enrollment.warnings = warnings;
    for (const message of news) {
      this.parts.logger.warn(message, { pod: enrollment.name });
      void this.parts.cluster.event(enrollment.pod, { type: "Warning", reason: "AmbientNotHeeded", message });
    }
  }

  /** Notes success; an Event only where there was a failure, or a capture that came late. */
  enrolled(enrollment: Enrollment): void {
    const failure = enrollment.failure;
    enrollment.failure = undefined;
    if (enrollment.late) {
      enrollment.late = false;
      this.parts.metrics.count("ambient_cni_late_captures_total");
      void this.parts.cluster.event(enrollment.pod, {
        type: "Warning",
        reason: "AmbientCapturedLate",
        message: "the pod started while the agent was away; its connections until now were not in the mesh",
      });
    } else if (failure !== undefined) {
      void this.parts.cluster.event(enrollment.pod, {
        type: "Normal",
        reason: "AmbientEnrolled",
        message: `captured by ${enrollment.engine ?? "?"} after ${Math.round((Date.now() - failure.since) / 1000)} s`,
      });
    }
  }
}
