// SPDX-License-Identifier: Apache-2.0
import type { Step } from "./schema.ts";

const pairs = (map: Readonly<Record<string, string>>): string =>
  Object.entries(map)
    .map(([key, value]) => `${key}=${value}`)
    .join(" ");

const on = (node: string | undefined): string => (node === undefined ? "" : ` on ${node}`);

/** What a step does, for those that have no title of their own. */
export function titleOf(step: Step): string {
  if ("start" in step)
    return `start ${step.start.join(", ")}${on(step.node)}${step.fails === undefined ? "" : ", which fails"}`;
  if ("stop" in step) return `stop ${step.stop}${on(step.node)}`;
  if ("kill" in step) return `kill -9 ${step.kill}${on(step.node)}`;
  if ("delete" in step) return `delete ${step.delete}`;
  if ("label" in step) return `label ${step.label} ${pairs(step.with)}`;
  if ("unlabel" in step) return `label ${step.unlabel} ${step.keys.map((key) => `${key}-`).join(" ")}`;
  if ("annotate" in step) return `annotate ${step.annotate} ${pairs(step.with)}`;
  if ("sabotage" in step) return `sabotage ${step.sabotage}: ${step.by}`;
  if ("wait" in step)
    return `${step.wait.join(", ")}: ${step.for}${step.reason === undefined ? "" : ` (${step.reason})`}`;
  if ("run" in step) return `ambient-cni ${step.run}${on(step.node)}`;
  if ("open" in step) return `${step.from} opens a connection to ${step.to}: ${step.open}`;
  if ("say" in step) return `connection ${step.say} ${step.expect === "echo" ? "is alive" : "is closed"}`;
  const { connect, to, port, family, expect } = step;
  const end = expect.answered === undefined ? "is refused" : `is answered by ${expect.answered}`;
  return `${connect} -> ${to}${port === undefined ? "" : `:${port}`} over IPv${family} ${end}`;
}
