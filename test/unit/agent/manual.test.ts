// SPDX-License-Identifier: Apache-2.0
import { afterEach, describe, expect, test } from "vitest";
import { Agent } from "../../../src/agent/agent.ts";
import { AgentError } from "../../../src/core/errors.ts";
import type { ManualClaim, ManualRequest } from "../../../src/core/ports/manual.ts";
import { eventually, FakeParts, makePod } from "../../fakes/parts.ts";

const LAB = "/ns/lab";
const REQUEST: ManualRequest = { netns: LAB, ips: ["10.9.0.2"], engine: null, workload: null };
const WORKLOAD = { namespace: "shop", name: "lab", serviceAccount: "default" };
const UID = `manual-${LAB}`;

let agent: Agent | undefined;
afterEach(async () => {
  await agent?.stop();
  agent = undefined;
});

async function started(parts: FakeParts): Promise<Agent> {
  agent = new Agent(parts, 1e9);
  await agent.start();
  parts.journal.length = 0;
  return agent;
}

const claim = (state: ManualClaim["state"], changes: Partial<ManualClaim> = {}): ManualClaim => ({
  ...REQUEST,
  uid: UID,
  netnsId: LAB,
  state,
  ...changes,
});
const stateOf = (name: string) => agent?.pods().find(({ pod }) => pod === name)?.state;

describe("a netns of nobody's", () => {
  test("is captured without a word to ztunnel or the cluster, and released without a trace", async () => {
    const parts = new FakeParts();
    parts.ztunnel.connected = false;
    const { manual } = await started(parts);
    await manual.enroll(REQUEST);
    expect(parts.journal).toEqual([`prepare ${UID}`, `exempt ${UID} 10.9.0.2`, `capture ${UID}`]);
    expect(parts.claims.written).toEqual([claim("captured")]);
    expect(stateOf(UID)).toBe("manual");
    parts.ztunnel.connect();
    expect(parts.ztunnel.known.size).toBe(0);
    parts.journal.length = 0;
    expect(await manual.wouldUnenroll(LAB)).toBe("released");
    parts.dataplane.proxied = 1;
    expect(await manual.wouldUnenroll(LAB)).toBe("draining");
    parts.dataplane.proxied = 0;
    expect(parts.journal).toEqual([]);
    expect(parts.claims.written).toEqual([claim("captured")]);
    expect(stateOf(UID)).toBe("manual");
    expect(await manual.unenroll(LAB)).toBe("released");
    expect(parts.journal).toEqual([`drain ${UID}`, `zds del ${UID}`, `release ${LAB}`, `revoke ${UID} 10.9.0.2`]);
    expect(parts.claims.written).toEqual([]);
    expect(stateOf(UID)).toBeUndefined();
    expect(parts.finder.openHandles).toEqual(new Set([...parts.finder.openHandles].filter(({ id }) => id === "host")));
    expect(await manual.wouldUnenroll(LAB)).toBe("nothing");
    expect(await manual.unenroll(LAB)).toBe("nothing");
  });

  test("is told to ztunnel as the workload that was named", async () => {
    const parts = new FakeParts();
    const { manual } = await started(parts);
    await manual.enroll({ ...REQUEST, workload: WORKLOAD });
    expect(parts.journal).toContain("zds add lab");
    parts.ztunnel.disconnect();
    parts.ztunnel.known.clear();
    parts.ztunnel.connect();
    expect(parts.ztunnel.known.get(UID)).toBe(LAB);
  });

  test("is as it was when capture fails, or when its record can't be written", async () => {
    const parts = new FakeParts();
    const { manual } = await started(parts);
    parts.dataplane.captureError = new Error("no such rule");
    await expect(manual.enroll(REQUEST)).rejects.toThrow("no such rule");
    await eventually("released", () => !parts.dataplane.kernel.has(LAB));
    expect(parts.probes.entries.size).toBe(0);
    expect(parts.claims.written).toEqual([]);
    expect(stateOf(UID)).toBeUndefined();
    parts.journal.length = 0;
    parts.dataplane.captureError = undefined;
    parts.claims.error = new Error("disk full");
    await expect(manual.enroll(REQUEST)).rejects.toThrow("disk full");
    expect(parts.journal).toEqual([]);
    parts.claims.error = undefined;
    await manual.enroll(REQUEST);
    await expect(manual.enroll(REQUEST)).rejects.toMatchObject({ code: "MANUAL_EXISTS" });
    // Released though the disk is full again: the kernel is what counts.
    parts.claims.error = new Error("disk full");
    expect(await manual.unenroll(LAB)).toBe("released");
    expect(parts.dataplane.kernel.has(LAB)).toBe(false);
  });

  test("is repaired like any pod", async () => {
    const parts = new FakeParts();
    const { manual } = await started(parts);
    await manual.enroll(REQUEST);
    parts.dataplane.kernel.delete(LAB);
    parts.dataplane.touched(LAB);
    await eventually("captured again", () => parts.dataplane.kernel.get(LAB)?.mode === "captured");
    expect(stateOf(UID)).toBe("manual");
  });

  test("is refused where a pod has its address, or something of ours is in it", async () => {
    const parts = new FakeParts();
    const web = parts.run("web", { labels: { "istio.io/dataplane-mode": "none" } });
    const { manual } = await started(parts);
    await expect(manual.enroll({ ...REQUEST, ips: web.ips })).rejects.toMatchObject({ code: "MANUAL_ADDRESS" });
    parts.dataplane.upstreams.add(LAB);
    await expect(manual.enroll(REQUEST)).rejects.toMatchObject({ code: "MANUAL_NOT_CLEAN" });
    expect(await manual.wouldUnenroll(LAB)).toBe("released");
    expect(parts.dataplane.upstreams.has(LAB)).toBe(true);
    expect(await manual.unenroll(LAB)).toBe("released");
    await manual.enroll(REQUEST);
  });
});

describe("labels decide about a pod", () => {
  test.each([
    ["none", "keeps it out of the mesh: label istio.io/dataplane-mode=none"],
    ["ambient", "puts it in the mesh: "],
  ])("labelled %s: its netns is neither captured nor released by hand", async (label, said) => {
    const parts = new FakeParts();
    parts.run("web", { labels: { "istio.io/dataplane-mode": label } });
    const { manual } = await started(parts);
    const refusal = { code: "NETNS_OF_POD", message: expect.stringContaining(said) };
    parts.finder.proc.set("uid-web", LAB);
    await expect(manual.enroll(REQUEST)).rejects.toMatchObject(refusal);
    await expect(manual.unenroll(LAB)).rejects.toMatchObject(refusal);
    await expect(manual.wouldUnenroll(LAB)).rejects.toMatchObject(refusal);
  });

  test("a netns that becomes a pod's is released, or that pod's", async () => {
    const parts = new FakeParts();
    const running = await started(parts);
    await running.manual.enroll(REQUEST);
    parts.run("out", { labels: { "istio.io/dataplane-mode": "none" } });
    parts.finder.proc.set("uid-out", LAB);
    await running.manual.keeping.contest();
    await eventually("asked to leave", () => running.roster.get(UID)?.manual?.state === "leaving");
    running.reconciler.queue.trigger(UID);
    await eventually("released", () => !parts.dataplane.kernel.has(LAB));
    parts.cluster.deletePod("uid-out");

    await running.manual.enroll(REQUEST);
    parts.finder.proc.set("uid-in", LAB);
    parts.cluster.putPod(makePod("in", { ips: ["10.9.0.2"] }));
    await eventually("the pod has it", () => running.roster.get("uid-in")?.netns?.id === LAB);
    running.reconciler.queue.trigger(UID);
    await eventually("no longer by hand", () => running.roster.get(UID) === undefined);
    expect(parts.dataplane.kernel.get(LAB)?.mode).toBe("captured");
    expect(parts.claims.written).toEqual([]);
  });

  test("a netns that nothing leads to any more is given up", async () => {
    const parts = new FakeParts();
    const running = await started(parts);
    await running.manual.enroll(REQUEST);
    await running.manual.keeping.contest();
    expect(running.roster.get(UID)).toBeDefined();
    parts.finder.closed.add(LAB);
    await running.manual.keeping.contest();
    expect(running.roster.get(UID)).toBeUndefined();
    expect(parts.claims.written).toEqual([]);
  });
});

describe("the next agent", () => {
  const captured = { mode: "captured", prepared: true } as const;

  test.each(["captured", "capturing"] as const)("adopts what is captured, though the record says %s", async (state) => {
    const before = new FakeParts();
    const first = await started(before);
    await first.manual.enroll(REQUEST);
    const spec = before.dataplane.kernel.get(LAB)?.spec;
    await first.stop();
    const next = new FakeParts();
    next.claims.written = [claim(state)];
    next.dataplane.kernel.set(LAB, { ...captured, spec });
    await started(next);
    await eventually("quiet", () => agent?.reconciler.queue.depth === 0);
    expect(stateOf(UID)).toBe("manual");
    expect(next.claims.written).toEqual([claim("captured")]);
    expect(next.probes.entries.get("10.9.0.2")).toBe(UID);
    expect(next.journal.filter((line) => !line.startsWith("warm"))).toEqual([]);
  });

  test("undoes what was only begun, and what was leaving", async () => {
    for (const [state, mode] of [
      ["capturing", "absent"],
      ["leaving", "captured"],
    ] as const) {
      const parts = new FakeParts();
      parts.claims.written = [claim(state)];
      parts.dataplane.kernel.set(LAB, { mode, prepared: true, spec: undefined });
      const running = await started(parts);
      await eventually("released", () => !parts.dataplane.kernel.has(LAB) && running.roster.get(UID) === undefined);
      expect(parts.claims.written).toEqual([]);
      await running.stop();
      agent = undefined;
    }
  });

  test("forgets what the kernel does not show, and leaves what it can't read", async () => {
    const parts = new FakeParts();
    parts.claims.written = [
      claim("captured"),
      claim("captured", { netns: "/ns/other", netnsId: "1:2", uid: "manual-2" }),
    ];
    parts.dataplane.kernel.set("/ns/other", { ...captured, spec: undefined });
    const running = await started(parts);
    const moved = parts.claims.written;
    expect(moved.map(({ netnsId }) => netnsId)).toEqual(["1:2"]);
    expect(parts.dataplane.kernel.has("/ns/other")).toBe(true);
    // Nothing lives in it, and nothing leads to it.
    await running.manual.keeping.contest();
    expect(parts.claims.written).toEqual([]);
  });

  test("starts, and serves pods, whatever is wrong with a record of a capture by hand", async () => {
    const parts = new FakeParts();
    parts.claims.written = [claim("captured"), claim("captured")];
    parts.dataplane.kernel.set(LAB, { ...captured, spec: undefined });
    parts.dataplane.observeError = new Error("netlink says no");
    parts.claims.error = new Error("no space left on device");
    const running = await started(parts);
    expect(running.missing()).toEqual([]);
    expect(running.roster.get(UID)).toBeUndefined();
    expect(parts.dataplane.kernel.has(LAB)).toBe(true);
    // It is seen as soon as it can be.
    parts.dataplane.observeError = undefined;
    parts.claims.error = undefined;
    parts.finder.proc.set("a process", LAB);
    await running.manual.keeping.contest();
    expect(running.roster.get(UID)?.manual?.state).toBe("captured");
    expect(parts.claims.written).toEqual([claim("captured")]);
  });

  test("leaves a record that it can't read as it is, and takes no further ones", async () => {
    const parts = new FakeParts();
    parts.claims.written = [claim("captured")];
    parts.claims.read = () => Promise.reject(new AgentError("CLAIMS_INVALID", "no JSON"));
    const running = await started(parts);
    await expect(running.manual.enroll(REQUEST)).rejects.toMatchObject({ code: "CLAIMS_INVALID" });
    agent = undefined;
    await running.depart("none", parts.clock.now() + 5000);
    expect(parts.claims.written).toEqual([claim("captured")]);
  });

  test("with ambient off, releases it", async () => {
    const parts = new FakeParts({ ambientEnabled: false });
    parts.claims.written = [claim("captured")];
    parts.dataplane.kernel.set(LAB, { ...captured, spec: undefined });
    const running = await started(parts);
    await eventually("released", () => !parts.dataplane.kernel.has(LAB));
    await expect(running.manual.enroll(REQUEST)).rejects.toMatchObject({ code: "AMBIENT_OFF" });
  });

  test("where none follows, it is over", async () => {
    const parts = new FakeParts();
    const running = await started(parts);
    await running.manual.enroll(REQUEST);
    agent = undefined;
    await running.depart("none", parts.clock.now() + 5000);
    expect(parts.dataplane.kernel.has(LAB)).toBe(false);
    expect(parts.claims.written).toEqual([]);
  });
});
