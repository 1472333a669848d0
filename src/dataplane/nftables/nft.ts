// SPDX-License-Identifier: Apache-2.0
import { AgentError, messageOf } from "../../core/errors.ts";
import { ExecError, run } from "../../sys/exec.ts";

const TIMEOUT_MS = 10_000;
const MAX_OUTPUT = 64 * 1024;

/**
 * Commits one nf_tables transaction in a netns: all of `text` or nothing.
 * @throws AgentError NFT_MISSING, or NFT_FAILED with nft's message and the line it is about.
 */
export async function nft(netns: number, text: string): Promise<void> {
  try {
    await run(["nft", "-f", "-"], { stdin: text, netns, timeoutMs: TIMEOUT_MS, maxBytes: MAX_OUTPUT });
  } catch (error) {
    throw explained(error, text);
  }
}

function explained(error: unknown, text: string): AgentError {
  if (!(error instanceof ExecError)) return new AgentError("NFT_FAILED", messageOf(error), undefined, { cause: error });
  if (error.code === "EXEC_SPAWN") {
    return new AgentError("NFT_MISSING", `nft can't be started: ${error.message}`, "install nftables 1.0 or newer", {
      cause: error,
    });
  }
  const line = Number(/(?:^|\n)[^\n]*?:(\d+):\d+/.exec(error.stderr)?.[1] ?? Number.NaN);
  const offending = Number.isNaN(line) ? undefined : text.split("\n")[line - 1]?.trim();
  const where = offending === undefined || error.stderr.includes(offending) ? "" : ` (line ${line}: ${offending})`;
  return new AgentError("NFT_FAILED", `${error.message}${where}`, undefined, { cause: error });
}
