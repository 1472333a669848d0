// SPDX-License-Identifier: Apache-2.0
import { fileURLToPath } from "node:url";
import { styleText } from "node:util";
import { messageOf } from "../core/errors.ts";
import type { Check } from "../sandbox/checks.ts";
import { writeEntrance } from "../sandbox/entrance.ts";
import { PodFollower } from "../sandbox/follower.ts";
import { Sandbox, type SandboxOptions } from "../sandbox/sandbox.ts";

/** What every command that brings a sandbox up lets its user choose. */
export interface SessionOptions extends Omit<SandboxOptions, "program" | "joins"> {
  readonly nodes: number;
  readonly say: (text: string) => void;
}

/** The bundle, beside this file in dist/, whichever part of it this is. */
export const PROGRAM = fileURLToPath(new URL("agent.mjs", import.meta.url));

export const paint = (style: "green" | "red" | "bold" | "dim", text: string): string =>
  process.stdout.isTTY && process.env.NO_COLOR === undefined ? styleText(style, text) : text;

export function showCheck({ passed, title, evidence, milliseconds }: Check): void {
  const sign = passed ? paint("green", "√") : paint("red", "×");
  process.stdout.write(`  ${sign} ${title} ${paint("dim", `(${milliseconds} ms)`)}\n      ${evidence}\n`);
}

/**
 * Brings up a cluster of one or two nodes for `body`, and takes everything away again, also on SIGINT and SIGTERM.
 * Resolves with why it ended early, if it did.
 */
export async function inSandboxes(
  { nodes, say, ...options }: SessionOptions,
  body: (sandboxes: readonly Sandbox[]) => Promise<void>,
): Promise<string | undefined> {
  const made: Sandbox[] = [];
  // The second first: it lives by the API server of the first.
  const stop = async () => {
    for (const sandbox of [...made].reverse()) await sandbox.stop();
  };
  let interrupted: NodeJS.Signals | undefined;
  const interrupt = (signal: NodeJS.Signals) => {
    if (interrupted !== undefined) return;
    interrupted = signal;
    process.stderr.write(`\n${signal}: cleaning up\n`);
    void stop().finally(() => process.exit(signal === "SIGINT" ? 130 : 143));
  };
  process.on("SIGINT", interrupt);
  process.on("SIGTERM", interrupt);
  let failure: string | undefined;
  try {
    for (let index = 0; index < nodes; index++) {
      const [first] = made;
      const joined = first === undefined ? options : { ...options, joins: first };
      await Sandbox.create({ ...joined, program: PROGRAM }, (sandbox) => made.push(sandbox));
    }
    await body(made);
  } catch (error) {
    if (interrupted !== undefined) await new Promise(() => undefined);
    failure = messageOf(error);
    say(`\n${paint("red", `The story ended early: ${failure}`)}\n`);
    for (const sandbox of made) {
      say(`last lines of the agent of ${sandbox.name}:\n${sandbox.agentLog().split("\n").slice(-15).join("\n")}\n`);
    }
  } finally {
    if (interrupted === undefined) await stop();
    process.off("SIGINT", interrupt);
    process.off("SIGTERM", interrupt);
  }
  return failure;
}

/** Leaves the sandbox up until Ctrl-C, and says how to play with it. */
export async function linger(sandboxes: readonly Sandbox[], say: (text: string) => void): Promise<void> {
  const [first] = sandboxes;
  if (first === undefined) return;
  // Pods that a person makes run on the first node.
  new PodFollower(first.api, first.kubelet, say);
  say(`\nThe sandbox stays until Ctrl-C. In another shell:\n`);
  say(`  export KUBECONFIG=${first.kubeconfigPath}\n`);
  say(`  kubectl get pods -A; kubectl label namespace default istio.io/dataplane-mode=ambient\n`);
  say(`  kubectl run web --image=any; kubectl delete pod web\n`);
  for (const { node, name } of sandboxes) {
    const own = sandboxes.length === 1 ? "" : `      # for ${name}`;
    say(`  export PATH=${writeEntrance(node, PROGRAM)}:$PATH; ambient-cni status${own}\n`);
    say(`  tail -f ${node.path("agent.log")}\n`);
    say(`  nsenter -t ${node.pid} -m -n -p bash      # a shell on ${name}\n`);
  }
  await new Promise(() => undefined);
}
