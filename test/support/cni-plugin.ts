// SPDX-License-Identifier: Apache-2.0
// The real plugin binary, started as a runtime starts it.
import { execFileSync, spawn } from "node:child_process";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";

const ROOT = join(import.meta.dirname, "../..");
const BINARY = join(ROOT, "dist/istio-cni");

/** Path of the plugin, built anew when its sources are newer; AMBIENT_CNI_TEST_PLUGIN names another build. */
export function pluginBinary(): string {
  const other = process.env.AMBIENT_CNI_TEST_PLUGIN;
  if (other !== undefined) return other;
  const sources = [...readdirSync(join(ROOT, "cni")).map((name) => join("cni", name)), "scripts/build-plugin"];
  const newest = Math.max(...sources.map((name) => statSync(join(ROOT, name)).mtimeMs));
  const built = statSync(BINARY, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (built < newest) execFileSync(join(ROOT, "scripts/build-plugin"));
  return BINARY;
}

export interface PluginRun {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly milliseconds: number;
}

export const POD_ENV: Readonly<Record<string, string>> = {
  CNI_CONTAINERID: "8a1b2c3d",
  CNI_NETNS: "/var/run/netns/cni-1",
  CNI_IFNAME: "eth0",
  CNI_PATH: "/opt/cni/bin",
  CNI_ARGS:
    "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0;K8S_POD_INFRA_CONTAINER_ID=8a1b2c3d;K8S_POD_UID=6f0c-1",
};

/** Runs one command; `undefined` in `env` removes a variable, `stdin` undefined leaves the pipe open. */
export function runPlugin(
  command: string | undefined,
  stdin: string | Buffer | undefined,
  env: Readonly<Record<string, string | undefined>> = {},
): Promise<PluginRun> {
  const all = Object.entries({ ...POD_ENV, CNI_COMMAND: command, ...env });
  const set = all.filter((entry): entry is [string, string] => entry[1] !== undefined);
  return new Promise((resolve, reject) => {
    const started = performance.now();
    const child = spawn(pluginBinary(), [], { env: Object.fromEntries(set), cwd: "/" });
    const output = { stdout: "", stderr: "" };
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
      output.stdout += chunk;
    });
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => {
      output.stderr += chunk;
    });
    child.stdin.on("error", () => undefined);
    if (stdin !== undefined) child.stdin.end(stdin);
    child.on("error", reject);
    child.on("close", (status, signal) => {
      child.stdin.destroy();
      resolve({ status, signal, ...output, milliseconds: performance.now() - started });
    });
  });
}
