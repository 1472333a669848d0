// SPDX-License-Identifier: Apache-2.0
import { afterEach, expect, test } from "vitest";
import { Agent } from "../../../src/agent/agent.ts";
import { AgentError } from "../../../src/core/errors.ts";
import { parseDocument } from "../../../src/core/report/documents.ts";
import { eventually, FakeParts } from "../../fakes/parts.ts";

const QUESTION = { engine: undefined, anyway: false } as const;
let agent: Agent | undefined;
afterEach(async () => {
  await agent?.stop();
  agent = undefined;
});

async function started(parts: FakeParts): Promise<Agent> {
  agent = new Agent(parts, 1e9);
  await agent.start();
  return agent;
}

test("what a plan says is what is done, step by step, and nothing is done by it", async () => {
  const parts = new FakeParts();
  parts.cluster.putNamespace("shop", {});
  const { uid } = parts.run("web");
  const running = await started(parts);
  parts.journal.length = 0;
  const plan = await running.planner().plan(uid, { ...QUESTION, anyway: true });
  expect(parseDocument("plan", JSON.parse(JSON.stringify(plan)))).toEqual(plan);
  expect(plan).toMatchObject({ now: "nothing: it is not in the mesh", engine: "nftables", problem: null, notes: [] });
  expect(parts.journal).toEqual([]);
  expect(parts.finder.openHandles).toEqual(new Set([...parts.finder.openHandles].filter(({ id }) => id === "host")));
  parts.cluster.putNamespace("shop", { "istio.io/dataplane-mode": "ambient" });
  await eventually("annotated", () => parts.journal.includes("annotate web enabled"));
  const done = parts.decisions.of(uid).find(({ decision }) => decision.what === "captured")?.decision.phases;
  expect(plan.steps.map(({ name }) => name)).toEqual([...Object.keys(done ?? {}), "annotate"]);
  expect((await running.planner().plan(uid, QUESTION)).now).toBe("nothing: captured by nftables as it should be");
});

test("a pod outside has no steps, one that would fail has its reason, one without a netns too", async () => {
  const parts = new FakeParts();
  const out = parts.run("out", { labels: { "istio.io/dataplane-mode": "none" } });
  const bad = parts.run("bad", { annotations: { "istio.io/reroute-virtual-interfaces": "eth0;" } });
  const web = parts.run("web");
  parts.ztunnel.connected = false;
  const planner = (await started(parts)).planner();
  expect(await planner.plan(out.uid, QUESTION)).toMatchObject({ steps: [], engine: null, problem: null });
  expect(await planner.plan(bad.uid, QUESTION)).toMatchObject({ problem: { code: "ANNOTATION_INVALID" }, steps: [] });
  expect(await planner.plan(web.uid, QUESTION)).toMatchObject({
    now: "nothing, until a ztunnel is connected",
    notes: ["no ztunnel is connected: a pod that is not captured waits for one"],
  });
  parts.dataplane.planError = new AgentError("NO_ENGINE", "ebpf does not work on this node: no bpffs");
  expect(await planner.plan(web.uid, { engine: "ebpf", anyway: false })).toMatchObject({
    problem: { code: "NO_ENGINE", message: "ebpf does not work on this node: no bpffs" },
  });
  parts.finder.proc.delete(out.uid);
  const lost = await planner.plan(out.uid, { ...QUESTION, anyway: true });
  expect(lost.problem?.code).toBe("NETNS_NOT_FOUND");
  await expect(planner.plan("nobody", QUESTION)).rejects.toMatchObject({ code: "POD_NOT_FOUND" });
});
