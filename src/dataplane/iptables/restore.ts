// SPDX-License-Identifier: Apache-2.0
import { AgentError, messageOf } from "../../core/errors.ts";
import type { AddressFamily } from "../../native/binding.ts";
import { ExecError, run } from "../../sys/exec.ts";
import type { Variant } from "./ruleset.ts";

const TIMEOUT_MS = 10_000;
const MAX_OUTPUT = 64 * 1024;

/**
 * Has iptables-restore commit one table after the other in a netns, each as a whole. What the text does
 * not name stays as it is.
 * @throws AgentError IPTABLES_MISSING, or IPTABLES_FAILED with its message and the line it is about.
 */
export async function restore(variant: Variant, family: AddressFamily, netns: number, text: string): Promise<void> {
  await runRestore(restoreCommand(variant, family), netns, text);
}

/** The program that `restore` runs, with its arguments. */
export function restoreCommand(variant: Variant, family: AddressFamily): readonly string[] {
  // --wait: other programs may hold the lock of the legacy variant; the other one has none.
  return [programOf(variant, family), "--noflush", "--wait"];
}

function programOf(variant: Variant, family: AddressFamily): string {
  return `${family === 4 ? "iptables" : "ip6tables"}-${variant}-restore`;
}

async function runRestore(argv: readonly string[], netns: number, text: string): Promise<void> {
  try {
    await run(argv, { stdin: text, netns, timeoutMs: TIMEOUT_MS, maxBytes: MAX_OUTPUT });
  } catch (error) {
    throw explained(error, text);
  }
}

function explained(error: unknown, text: string): AgentError {
  const cause = { cause: error };
  if (!(error instanceof ExecError)) return new AgentError("IPTABLES_FAILED", messageOf(error), undefined, cause);
  if (error.code === "EXEC_SPAWN") {
    const what = `${error.argv0} can't be started: ${error.message}`;
    return new AgentError("IPTABLES_MISSING", what, "install iptables 1.8 or newer", cause);
  }
  const line = Number(/line:? (\d+)/.exec(error.stderr)?.[1] ?? Number.NaN);
  const offending = Number.isNaN(line) ? undefined : text.split("\n")[line - 1];
  const where = offending === undefined ? "" : ` (line ${line}: ${offending})`;
  return new AgentError("IPTABLES_FAILED", `${error.message}${where}`, undefined, cause);
}
