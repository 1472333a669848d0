// SPDX-License-Identifier: Apache-2.0
import type { CaptureSpec, EngineName } from "../core/ports/dataplane.ts";
import { exemptibleIps } from "./desire.ts";
import type { Enrollment } from "./enrollment.ts";
import type { Parts } from "./parts.ts";

/**
 * A pod's place in the probe exemption. What is meant to be there is noted before it is asked for, and believed once
 * it is answered: a change that fails may have been made all the same.
 */
export class Exemption {
  constructor(private readonly parts: Pick<Parts, "config" | "probes">) {}

  /** For exactly the addresses of the spec. Asks for nothing that is known to be there. */
  async allow(enrollment: Enrollment, spec: CaptureSpec, engine: EngineName): Promise<void> {
    const { config, probes } = this.parts;
    const { uid, exemptIps } = enrollment;
    const wanted = exemptibleIps(config, spec.ips);
    const gone = exemptIps.filter((ip) => !wanted.includes(ip));
    enrollment.exempt &&= wanted.every((ip) => exemptIps.includes(ip));
    enrollment.exemptIps = [...wanted, ...gone];
    if (!enrollment.exempt && wanted.length > 0) await probes.allow({ uid, ips: wanted, engine });
    enrollment.exempt = true;
    if (gone.length > 0) await probes.revoke(uid, gone);
    enrollment.exemptIps = wanted;
  }

  async revoke(enrollment: Enrollment): Promise<void> {
    enrollment.exempt = false;
    await this.parts.probes.revoke(enrollment.uid, enrollment.exemptIps);
    enrollment.exemptIps = [];
  }
}
