// SPDX-License-Identifier: Apache-2.0
import { spawnSync } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";

export interface PluginTimes {
  /** Medians, in ms, of the plugin's ADD and of a static program that does nothing. */
  readonly add: number;
  readonly empty: number;
}

/** One shell loop inside the node, so that neither nsenter nor Node is measured with each run. */
const LOOP = `
for ((i = 0; i < $1; i++)); do
  began=$EPOCHREALTIME
  "$2" < "$3" > /dev/null || exit 1
  ended=$EPOCHREALTIME
  echo $(( \${ended/./} - \${began/./} ))
done`;

function medianUs(sandbox: Sandbox, runs: number, program: string, stdin: string, env: Record<string, string>): number {
  const [file = "", ...args] = sandbox.node.enter(["bash", "-c", LOOP, "loop", String(runs), program, stdin]);
  const { status, stdout, stderr } = spawnSync(file, args, { env: { ...process.env, ...env }, encoding: "utf8" });
  if (status !== 0) throw new Error(`${program} failed: ${stdout}${stderr}`);
  const times = stdout
    .trim()
    .split("\n")
    .map(Number)
    .sort((a, b) => a - b);
  return times[Math.floor(times.length / 2)] ?? 0;
}

/** ADD of a pod that is in the mesh and captured already, beside the running agent. */
export function measurePlugin(sandbox: Sandbox, runs: number): PluginTimes {
  const pod = [...sandbox.kubelet.pods.values()].at(-1);
  if (pod === undefined) throw new Error("no pod to ask for");
  const list = JSON.parse(sandbox.installed().conf) as { cniVersion: string; plugins: { type: string }[] };
  const ips = pod.ips.map((ip) => ({ address: `${ip}/${ip.includes(":") ? 64 : 24}` }));
  const conf = {
    ...list.plugins.find(({ type }) => type === "istio-cni"),
    cniVersion: list.cniVersion,
    name: "sandbox",
    prevResult: { cniVersion: list.cniVersion, interfaces: [], ips },
  };
  const stdin = sandbox.node.path("bench-stdin.json");
  const source = sandbox.node.path("empty.c");
  const empty = sandbox.node.path("empty");
  writeFileSync(stdin, JSON.stringify(conf));
  writeFileSync(source, "int main(void) { return 0; }\n");
  spawnSync("gcc", ["-static", "-O2", "-o", empty, source]);
  const env = {
    CNI_COMMAND: "ADD",
    CNI_CONTAINERID: pod.attachment.containerId,
    CNI_NETNS: pod.attachment.netns,
    CNI_IFNAME: "eth0",
    CNI_PATH: "/opt/cni/bin",
    CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=${pod.namespace};K8S_POD_NAME=${pod.name};K8S_POD_UID=${pod.uid}`,
  };
  const plugin = sandbox.node.path("opt/cni/bin/istio-cni");
  const times = {
    add: medianUs(sandbox, runs, plugin, stdin, env) / 1000,
    empty: medianUs(sandbox, runs, empty, stdin, {}) / 1000,
  };
  rmSync(stdin);
  return times;
}
