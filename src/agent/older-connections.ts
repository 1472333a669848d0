// SPDX-License-Identifier: Apache-2.0
import { messageOf } from "../core/errors.ts";
import type { CaptureSpec } from "../core/ports/dataplane.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { Enrollment } from "./enrollment.ts";
import type { Parts } from "./parts.ts";

/** Counts and protects a captured pod's connections that are older than its capture; where the node wants it, resets them. */
export class OlderConnections {
  constructor(private readonly parts: Parts) {}

  /** One look. A failure is logged, never thrown: the pod is captured all the same. */
  look(enrollment: Enrollment, netns: NetnsHandle, spec: CaptureSpec): void {
    // Needs nothing of what follows, and is needed whatever becomes of that.
    this.attempt(enrollment, "keeping ztunnel off the ports of older connections", () => {
      this.parts.existing.protect(netns);
    });
    this.attempt(enrollment, "looking for connections older than the capture", () => {
      this.count(enrollment, netns, spec);
    });
  }

  private count(enrollment: Enrollment, netns: NetnsHandle, spec: CaptureSpec): void {
    const { existing, config, metrics, decisions } = this.parts;
    if (config.existingConnections === "reset") {
      const connections = existing.reset(netns, spec);
      enrollment.existing = 0;
      if (connections === 0) return;
      metrics.count("ambient_cni_existing_connections_reset_total", {}, connections);
      const detail = `${connections} older than the capture`;
      decisions.note(enrollment, { what: "older connections", reason: "reset", detail });
      return;
    }
    const before = enrollment.existing;
    enrollment.existing = existing.count(netns, spec);
    if (before === 0 && enrollment.existing > 0) {
      const detail = `${enrollment.existing} older than the capture go on outside the mesh until they close`;
      decisions.note(enrollment, { what: "older connections", reason: "kept", detail });
    }
  }

  private attempt(enrollment: Enrollment, what: string, act: () => void): void {
    try {
      act();
    } catch (error) {
      this.parts.logger.warn(what, { pod: enrollment.name, error: messageOf(error) });
    }
  }
}
