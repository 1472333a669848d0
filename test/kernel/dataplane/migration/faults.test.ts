// SPDX-License-Identifier: Apache-2.0
// An agent is killed between any two of its writes to a pod that it takes from istio-cni or gives back, or the kernel
// refuses any one of them: no new connection passes ztunnel by, none fails, open ones live, and the next one finishes.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Fault } from "../../../support/faulty-binding.ts";
import { type FaultAgent, FaultLab } from "../../../support/lab-faults.ts";
import { UPSTREAM_SETTINGS } from "../../../support/lab-giver.ts";
import { enrolByUpstream, UPSTREAM_FORMS, unenrolByUpstream } from "../../../support/lab-upstream.ts";

const ENGINES = ["ebpf", "nftables", "iptables"] as const;

let lab: FaultLab;
let faulty: FaultAgent;
let next: FaultAgent;

beforeAll(async () => {
  lab = new FaultLab();
  faulty = await lab.startFaulty();
  next = await lab.start();
});
beforeEach(() => lab.renew());
afterAll(() => lab.close());

describe.each<Fault>(["killed", "refused"])("%s", (fault) => {
  describe.each(UPSTREAM_FORMS)("istio-cni by %s", (form) => {
    const always = () => ({ always: lab.throughZtunnel, finally: lab.throughZtunnel, lasting: true });

    test.each(ENGINES)("before, %s after", async (engine) => {
      const spec = lab.spec({ engine });
      await lab.expectEverywhere(fault, {
        ...always(),
        given: async () => {
          await next.dataplane.release(lab.pod);
          await enrolByUpstream(lab.pod, form);
        },
        change: (netns) => faulty.dataplane.capture(netns, spec, true),
        finish: () => next.dataplane.capture(lab.pod, spec, true),
      });
      await expect.poll(() => next.dataplane.proxiedConnections(lab.pod)).toBe(0);
      await next.dataplane.release(lab.pod);
      await lab.expectUntouched();
    });

    test.each(ENGINES)("after, %s before", async (engine) => {
      const spec = lab.spec({ engine });
      Object.assign(lab.config, UPSTREAM_SETTINGS[form]);
      await lab.expectEverywhere(fault, {
        ...always(),
        given: async () => {
          // Also of what is upstream's by now.
          await next.dataplane.release(lab.pod);
          await next.dataplane.capture(lab.pod, spec);
        },
        change: (netns) => faulty.dataplane.handOver(netns, spec),
        finish: () => next.dataplane.handOver(lab.pod, spec),
      });
      await expect.poll(() => next.dataplane.proxiedConnections(lab.pod)).toBe(0);
      // The shield stays while connections are closing.
      const leave = async () => {
        await next.dataplane.handOver(lab.pod, spec);
        await unenrolByUpstream(lab.pod, form);
        return next.dataplane.present(lab.pod);
      };
      await expect.poll(leave).toBe(false);
    });
  });
});
