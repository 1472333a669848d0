// SPDX-License-Identifier: Apache-2.0
import { httpGet } from "../../src/sandbox/probe.ts";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";

/** Mean of each enrolment phase in ms, from the agent's own histogram. */
export async function phaseMeans(sandbox: Sandbox): Promise<[phase: string, ms: number][]> {
  const netns = `/proc/${sandbox.agent?.leafPid() ?? 0}/ns/net`;
  const { body } = await httpGet(netns, "127.0.0.1", 15014, "/metrics");
  const sums = new Map<string, number>();
  const counts = new Map<string, number>();
  for (const line of body.split("\n")) {
    const match = /^ambient_cni_enroll_seconds_(sum|count)\{.*phase="([^"]+)".*\} (\S+)$/.exec(line);
    if (match === null) continue;
    const [, kind, phase = "", value] = match;
    const into = kind === "sum" ? sums : counts;
    into.set(phase, (into.get(phase) ?? 0) + Number(value));
  }
  return [...sums].map(([phase, sum]) => [phase, (sum * 1000) / (counts.get(phase) ?? 1)]);
}
