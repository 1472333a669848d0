// SPDX-License-Identifier: Apache-2.0
import type { StatusReport } from "../../core/report/status.ts";
import { span, visible } from "./text.ts";

/** First line of a status: what is looked at, and who says so. */
export function headline({ version, node, kernel, upSeconds, source }: StatusReport): string {
  const parts = [`ambient-cni${version === null ? "" : ` ${version}`}`];
  if (node !== null) parts.push(`node ${node}`);
  parts.push(`kernel ${kernel}`);
  if (upSeconds !== null) parts.push(`up ${span(upSeconds)}`);
  parts.push(sourceText(source));
  return `${visible(parts.join("  "))}\n`;
}

/** `source: agent`, `source: kernel (agent unreachable: ...)`. */
export function sourceText({ from, note }: StatusReport["source"]): string {
  return `source: ${from}${note === "" ? "" : ` (${note})`}`;
}

/** A line above a table that the agent did not make; nothing above one that it made. */
export function sourceLine({ source }: Pick<StatusReport, "source">): string {
  return source.from === "agent" ? "" : `${visible(sourceText(source))}\n`;
}
