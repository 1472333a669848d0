// SPDX-License-Identifier: Apache-2.0
import { existsSync, readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { fileURLToPath } from "node:url";
import { cgroup1Hierarchies, cgroup2Root } from "../../src/sandbox/cgroup.ts";
import type { RunningPod } from "../../src/sandbox/kubelet.ts";
import { addressesOf } from "../../src/sandbox/network.ts";
import { ipOf } from "../../src/sandbox/pod-records.ts";
import { Sandbox, type SandboxOptions } from "../../src/sandbox/sandbox.ts";

/** What `scripts/build` made; the end-to-end tests run it, not the sources. */
export const PROGRAM = fileURLToPath(new URL("../../dist/agent.mjs", import.meta.url));

export const LABEL = "istio.io/dataplane-mode";
export const REDIRECTION = "ambient.istio.io/redirection";

/** Runs `body` in a sandbox of its own, and takes it down whatever happens. */
export async function withSandbox(
  options: Partial<SandboxOptions>,
  body: (sandbox: Sandbox) => Promise<void>,
): Promise<void> {
  if (!existsSync(PROGRAM)) throw new Error(`${PROGRAM} is missing: run scripts/build`);
  const sandbox = await Sandbox.create({ program: PROGRAM, chart: "newest", ztunnel: undefined, ...options });
  try {
    await body(sandbox);
  } catch (error) {
    const tail = sandbox.agentLog().split("\n").slice(-30).join("\n");
    // The same error: an assertion's carries what was expected, which the runner shows as a difference.
    if (error instanceof Error) error.message += `\n--- agent's last lines\n${tail}`;
    throw error;
  } finally {
    await sandbox.stop();
  }
}

/** Describes one pod to ztunnel by its place in the order of creation. */
export const workload = (namespace: string, name: string, index: number) => ({
  namespace,
  name,
  serviceAccount: "default",
  ips: addressesOf(index),
  protocol: "HBONE" as const,
});

export const httpUrl = (pod: RunningPod, family: 4 | 6 = 4): string => {
  const ip = ipOf(pod, family);
  return `http://${family === 6 ? `[${ip}]` : ip}:8080/`;
};

/** The program that a pod runs. @throws Error for a pod without one. */
export function appOf(pod: RunningPod) {
  if (pod.app === undefined) throw new Error(`pod ${pod.name} runs no app`);
  return pod.app;
}

/** Directories, cgroups that a sandbox of process `pid` has left. */
export function leftovers(pid: number): string[] {
  const mine = `ambient-cni-sandbox-${pid}-`;
  return [tmpdir(), cgroup2Root(), ...cgroup1Hierarchies().map(({ point }) => point)].flatMap((path) =>
    readdirSync(path)
      .filter((name) => name.startsWith(mine))
      .map((name) => `${path}/${name}`),
  );
}
