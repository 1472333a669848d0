// SPDX-License-Identifier: Apache-2.0
import { isIP } from "node:net";
import type { Path } from "./located.ts";
import type { Scenario, Step } from "./schema.ts";

export interface WrongReference {
  readonly path: Path;
  readonly message: string;
}

/** Commands that only read, or change nothing but the sandbox's own pods and log levels. */
const COMMANDS: readonly string[] = [
  "check",
  "config",
  "engines",
  "inspect",
  "log",
  "monitor",
  "plan",
  "pods",
  "reset-existing",
  "status",
  "trace",
  "verify",
  "version",
];

/** Options that leave it at that: inspect, for one, can run programs too. */
const OPTIONS: readonly string[] = [
  "--all",
  "--brief",
  "--category",
  "--diff",
  "--enrolled",
  "--failing",
  "--last",
  "--limit",
  "--namespace",
  "--no-color",
  "--output",
  "--pod",
  "--quick",
  "--reset",
  "--timeout",
  "--verdict",
  "--wait",
  "-n",
  "-o",
];

const unknownOption = (words: readonly string[]): string | undefined =>
  words.find((word) => word.startsWith("-") && !OPTIONS.includes(word.split("=")[0] ?? ""));

/** Names in a scenario that nothing has, and words that don't go together. */
export function wrongReferences(scenario: Scenario): WrongReference[] {
  const { namespaces, pods, services, steps, nodes = 1 } = scenario;
  const found: WrongReference[] = [];
  const wrong = (path: Path, message: string) => found.push({ path, message });
  const known = (path: Path, what: string, name: string, all: readonly string[]) => {
    if (!all.includes(name))
      wrong(path, `no ${what} ${JSON.stringify(name)} in this scenario (${all.join(", ") || "there is none"})`);
  };
  const podNames = Object.keys(pods);
  const spaces = Object.keys(namespaces);
  const nodeNames = ["node1", "node2"].slice(0, nodes);
  const namespaceOf = (name: string) => name.slice(0, name.indexOf("/"));
  for (const [name, { node }] of Object.entries(pods)) {
    known(["pods", name], "namespace", namespaceOf(name), spaces);
    if (node !== undefined) known(["pods", name, "node"], "node", node, nodeNames);
  }
  for (const [name, service] of Object.entries(services)) {
    known(["services", name], "namespace", namespaceOf(name), spaces);
    if (podNames.includes(name)) wrong(["services", name], "a pod has this name too");
    for (const [index, pod] of service.pods.entries()) {
      const at = ["services", name, "pods", index];
      known(at, "pod", pod, podNames);
      if (namespaceOf(pod) !== namespaceOf(name)) wrong(at, "of another namespace than its service");
    }
  }
  const kept = new Set<string>();
  for (const [index, step] of steps.entries()) checkStep(step, ["steps", index]);
  return found;

  function checkStep(step: Step, at: Path): void {
    const pod = (word: string, name: string) => known([...at, word], "pod", name, podNames);
    if ("node" in step && step.node !== undefined) known([...at, "node"], "node", step.node, nodeNames);
    if ("start" in step) {
      for (const one of step.start) if (one.includes("/")) pod("start", one);
    } else if ("delete" in step) pod("delete", step.delete);
    else if ("annotate" in step) pod("annotate", step.annotate);
    else if ("sabotage" in step) pod("sabotage", step.sabotage);
    else if ("wait" in step) for (const one of step.wait) pod("wait", one);
    else if ("label" in step) known([...at, "label"], "namespace or pod", step.label, [...spaces, ...podNames]);
    else if ("unlabel" in step) known([...at, "unlabel"], "namespace or pod", step.unlabel, [...spaces, ...podNames]);
    else if ("open" in step) {
      pod("from", step.from);
      pod("to", step.to);
      kept.add(step.open);
    } else if ("say" in step) known([...at, "say"], "open connection", step.say, [...kept]);
    else if ("run" in step) {
      const [command = "", ...words] = step.run.trim().split(/\s+/);
      if (!COMMANDS.includes(command)) {
        wrong(
          [...at, "run"],
          `not a command that a scenario runs: ${JSON.stringify(command)} (${COMMANDS.join(", ")})`,
        );
      }
      const option = unknownOption(words);
      if (COMMANDS.includes(command) && option !== undefined) {
        wrong([...at, "run"], `not an option that a scenario uses: ${JSON.stringify(option)} (${OPTIONS.join(", ")})`);
      }
    } else if ("connect" in step) {
      const { connect, to, expect } = step;
      known([...at, "connect"], "pod or node", connect, [...podNames, ...nodeNames]);
      if (isIP(to) === 0) known([...at, "to"], "address, pod or service", to, [...podNames, ...Object.keys(services)]);
      const { answered, client, refused, outbound, inbound } = expect;
      const here = (word: string): Path => [...at, "expect", word];
      if ((answered === undefined) === (refused === undefined))
        wrong([...at, "expect"], "says neither who answered nor that it is refused, or both");
      if (answered !== undefined) known(here("answered"), "pod", answered, podNames);
      if (client !== undefined && isIP(client) === 0)
        known(here("client"), "address, pod or node", client, [...podNames, ...nodeNames]);
      if (outbound !== undefined && outbound !== "none") known(here("outbound"), "node (or none)", outbound, nodeNames);
      if (inbound !== undefined && inbound !== "none") known(here("inbound"), "node (or none)", inbound, nodeNames);
      if (connect.includes("/")) return;
      for (const word of ["wire", "outbound"] as const) {
        if (expect[word] !== undefined) wrong(here(word), "can't be told of a node's own connection");
      }
    }
  }
}
