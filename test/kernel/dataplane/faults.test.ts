// SPDX-License-Identifier: Apache-2.0
// An agent is killed between any two of its writes to a pod, or the kernel refuses any one of them: no new
// connection passes ztunnel by, none fails, open ones live, and the next agent finishes what was begun.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { CaptureSpec } from "../../../src/core/ports/dataplane.ts";
import { KNOBS, SCHEMA } from "../../../src/dataplane/ebpf/node.ts";
import { native } from "../../../src/native/load.ts";
import type { Fault } from "../../support/faulty-binding.ts";
import { type Course, type FaultAgent, FaultLab, OURS } from "../../support/lab-faults.ts";
import type { Call } from "../../support/lab-peer.ts";
import { expectAlive } from "../../support/lab-traffic.ts";

/** For no packet of these tests the other port matters. */
const OTHER_PROGRAMS = { schema: SCHEMA, knobs: { ...KNOBS, hbonePort: 15018 } };
const OTHER_SCHEMA = { schema: SCHEMA + 1, knobs: KNOBS };
const ENGINES = ["ebpf", "nftables", "iptables"] as const;

let lab: FaultLab;

describe.each<Fault>(["killed", "refused"])("%s", (fault) => {
  describe.each([
    ["of another schema", OTHER_SCHEMA],
    ["of other programs", OTHER_PROGRAMS],
  ])("while it takes over from an agent %s", (_name, version) => {
    let older: FaultAgent;
    let faulty: FaultAgent;
    let next: FaultAgent;
    beforeAll(async () => {
      lab = new FaultLab();
      older = await lab.start(OURS);
      faulty = await lab.startFaulty(version);
      next = await lab.start(version);
    });
    beforeEach(() => lab.renew());
    afterAll(() => lab.close());

    test("a pod is captured all along", async () => {
      const spec = lab.spec();
      await lab.expectEverywhere(fault, {
        given: async () => {
          await next.dataplane.release(lab.pod);
          await older.dataplane.capture(lab.pod, spec);
        },
        change: (netns) => faulty.dataplane.capture(netns, spec),
        finish: () => next.dataplane.capture(lab.pod, spec),
        always: lab.throughZtunnel,
        finally: lab.throughZtunnel,
        lasting: true,
      });
      await next.dataplane.release(lab.pod);
      await lab.expectUntouched();
    });
  });

  describe("while it changes", () => {
    let faulty: FaultAgent;
    let next: FaultAgent;
    beforeAll(async () => {
      lab = new FaultLab();
      faulty = await lab.startFaulty();
      next = await lab.start();
    });
    beforeEach(() => lab.renew());
    afterAll(() => lab.close());

    const captured = (from: CaptureSpec, to: CaptureSpec): Course => ({
      given: async () => {
        await next.dataplane.release(lab.pod);
        await next.dataplane.capture(lab.pod, from);
      },
      change: (netns) => faulty.dataplane.capture(netns, to),
      finish: async () => {
        // What another engine has begun stays until its connections have ended.
        const again = async () => {
          await next.dataplane.capture(lab.pod, to);
          return next.dataplane.observe(lab.pod, to);
        };
        await expect.poll(again).toMatchObject({ mode: "captured", engine: to.engine ?? "ebpf" });
      },
      always: lab.throughZtunnel,
      finally: lab.throughZtunnel,
      lasting: true,
    });

    async function expectNothingLeft(but?: RegExp): Promise<void> {
      await expect.poll(() => next.dataplane.proxiedConnections(lab.pod)).toBe(0);
      await next.dataplane.release(lab.pod);
      await lab.expectUntouched(but);
    }

    test("a pod's settings", async () => {
      const excluding = lab.spec({ excludeOutboundCidrs: ["192.0.2.0/24"] });
      await lab.expectEverywhere(fault, captured(lab.spec(), excluding));
      await expectNothingLeft();
    });

    test("a pod whose entry is lost: it stays closed", async () => {
      const { given, ...course } = captured(lab.spec(), lab.spec());
      await lab.expectEverywhere(fault, {
        ...course,
        given: async () => {
          await given();
          next.ebpf.node.bpf.podDelete(native().netnsCookie(lab.pod.fd));
        },
        always: lab.nothingPasses,
        lasting: false,
      });
      await expectNothingLeft();
    });

    test.each(ENGINES.flatMap((from) => ENGINES.filter((to) => to !== from).map((to) => ({ from, to }))))(
      "a pod's engine from $from to $to",
      async ({ from, to }) => {
        await lab.expectEverywhere(fault, captured(lab.spec({ engine: from }), lab.spec({ engine: to })));
        // What was set by who was killed before that was written anywhere looks like the pod's own.
        await expectNothingLeft(fault === "killed" && from === "ebpf" ? /ip_early_demux|conntrack_tcp_/ : undefined);
      },
    );

    test.each([
      { from: "ebpf", to: "nftables" },
      { from: "nftables", to: "ebpf" },
      { from: "iptables", to: "nftables" },
    ] as const)("a pod whose connections live by $from, from $to to drained", async ({ from, to }) => {
      const spec = lab.spec({ engine: to });
      const older: Call[] = [];
      await lab.expectEverywhere(fault, {
        ...captured(lab.spec({ engine: from }), spec),
        given: async () => {
          for (const call of older.splice(0)) call.close();
          await next.dataplane.release(lab.pod);
          await next.dataplane.capture(lab.pod, lab.spec({ engine: from }));
          older.push(...(await lab.traffic.openAll()));
          await next.dataplane.capture(lab.pod, spec);
        },
        change: (netns) => faulty.dataplane.drain(netns, spec),
        finish: async () => {
          await next.dataplane.drain(lab.pod, spec);
          expect(next.dataplane.observe(lab.pod, spec).mode).toBe("draining");
        },
        always: async () => {
          await lab.open();
          await expectAlive(older);
        },
        finally: lab.open,
      });
      for (const call of older) call.close();
      await expectNothingLeft();
    });

    describe.each(ENGINES)("a pod that is not captured, by %s", (engine) => {
      test("to captured", async () => {
        await lab.expectEverywhere(fault, {
          ...captured(lab.spec(), lab.spec({ engine })),
          given: async () => {
            await next.dataplane.release(lab.pod);
            await lab.expectUntouched();
          },
          always: lab.open,
        });
        await expectNothingLeft();
      });

      test("and back", async () => {
        const spec = lab.spec({ engine });
        await lab.expectEverywhere(fault, {
          ...captured(spec, spec),
          change: async (netns) => {
            await faulty.dataplane.drain(netns, spec);
            await faulty.dataplane.release(netns);
          },
          finish: async () => {
            await next.dataplane.release(lab.pod);
            await lab.expectUntouched();
          },
          always: lab.open,
          finally: lab.open,
          // ztunnel ends them.
          lasting: false,
        });
      });
    });
  });
});
