// SPDX-License-Identifier: Apache-2.0
// Scenario files: those of the repository are read, and whatever is wrong in one is told with its line and value.
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { parseScenario, ScenarioError } from "../../../src/sandbox/scenario/read.ts";
import { SABOTAGES } from "../../../src/sandbox/scenario/sabotage.ts";
import { STEPS, scenarioSchema } from "../../../src/sandbox/scenario/schema.ts";
import { titleOf } from "../../../src/sandbox/scenario/title.ts";

const DIRECTORY = fileURLToPath(new URL("../../../scenarios/", import.meta.url));

/** What is said about a text; empty when it is a scenario. */
function problems(text: string): readonly string[] {
  try {
    parseScenario("f.yaml", text);
    return [];
  } catch (error) {
    if (error instanceof ScenarioError) return error.problems;
    throw error;
  }
}

const HEAD = "title: x\nnamespaces: { shop: {} }\npods: { shop/web: {} }\n";
const steps = (...lines: readonly string[]) =>
  problems(`${HEAD}steps:\n${lines.map((line) => `- ${line}\n`).join("")}`);

test.each(readdirSync(DIRECTORY))("%s is a scenario, and each of its steps has a title", (name) => {
  const scenario = parseScenario(name, readFileSync(`${DIRECTORY}${name}`, "utf8"));
  for (const step of scenario.steps) expect(titleOf(step)).toMatch(/\S/);
});

test.each([
  ["engine: foo", 'f.yaml:1: engine: not ebpf, nftables or iptables: "foo"'],
  ["nodes: 3", "f.yaml:1: nodes: not 1 or 2: 3"],
  ["colour: red", "f.yaml:1: colour: no such word here"],
  ["environment: { PATH: /tmp }", 'f.yaml:1: environment.PATH: not a setting of the agent (AMBIENT_...): "PATH"'],
])("%s is refused", (line, told) => {
  expect(problems(`${line}\n${HEAD}steps:\n- start: agent\n`)).toEqual([told]);
});

test.each([
  ["start: gent", 'steps[0].start: not agent, ztunnel or a pod (namespace/name): "gent"'],
  ["start: [agent, shop/x]", 'steps[0].start: no pod "shop/x" in this scenario (shop/web)'],
  ["{ start: agent, node: node2 }", 'steps[0].node: no node "node2" in this scenario (node1)'],
  ["{ kill: agent, stop: agent }", "steps[0]: two steps in one: kill and stop"],
  ["{ label: shop, with: { a: true } }", "steps[0].with.a: not text: true (put it in quotes)"],
  ["{ wait: shop/web, for: captive }", /^steps\[0\]\.for: not one of enrolled, .*: "captive"$/],
  ["{ wait: shop/web, for: enrolled, within: 3h }", 'steps[0].within: not a time such as 500ms, 5s or 1m: "3h"'],
  ["{ wait: shop/web, for: enrolled, within: 9m }", "steps[0].within: longer than 120 s"],
  [
    "{ connect: shop/web, to: nowhere, expect: { refused: any } }",
    /^steps\[0\]\.to: no address, pod or service "nowhere"/,
  ],
  ["{ connect: shop/web, to: 1.2.3.4, port: 99999, expect: { refused: any } }", "steps[0].port: not a port: 99999"],
  ["{ connect: shop/web, to: 1.2.3.4, expect: {} }", /^steps\[0\]\.expect: says neither/],
  [
    "{ connect: node1, to: shop/web, expect: { refused: any, wire: clear } }",
    /^steps\[0\]\.expect\.wire: can't be told/,
  ],
  ["run: remove --host-root /", /^steps\[0\]\.run: not a command that a scenario runs: "remove"/],
  ["run: bugreport -o /etc/passwd", /^steps\[0\]\.run: not a command that a scenario runs: "bugreport"/],
  [
    "run: inspect shop/web --netns-shell -- reboot",
    /^steps\[0\]\.run: not an option that a scenario uses: "--netns-shell"/,
  ],
  ["run: pods --from=/etc/shadow", /^steps\[0\]\.run: not an option that a scenario uses: "--from=/],
  ["{ sabotage: shop/web, by: rm -rf / }", /^steps\[0\]\.by: not one of flush-nftables, .*: "rm -rf \/"$/],
  ["say: old", /^steps\[0\]\.say: no open connection "old"/],
  ["dance: shop/web", /^steps\[0\]: not a step \(one of start, /],
])("%s is refused", (line, told) => {
  const [found = "", ...more] = steps(line);
  expect(more).toEqual([]);
  expect(found.slice(0, 10)).toBe("f.yaml:5: ");
  expect(found.slice(10)).toEqual(typeof told === "string" ? told : expect.stringMatching(told));
});

test("what is no YAML, too large or full of aliases is refused", () => {
  expect(problems("a: [1\nb: 2")).toEqual([expect.stringMatching(/^f\.yaml:2: /)]);
  const bomb =
    "a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c]\n";
  expect(problems(bomb)).toEqual([expect.stringMatching(/alias/)]);
  expect(steps(...Array.from({ length: 201 }, () => "start: agent"))).toEqual(["f.yaml:4: steps: more than 200 steps"]);
  expect(problems("- 1")).toEqual([expect.stringMatching(/^f\.yaml:1: /)]);
  expect(problems("")).toHaveLength(1);
});

test("docs/SCENARIOS.md knows every word", () => {
  const document = readFileSync(new URL("../../../docs/SCENARIOS.md", import.meta.url), "utf8");
  for (const word of Object.keys(STEPS)) expect(document).toMatch(new RegExp(`^\\| \`${word}: `, "m"));
  for (const word of Object.keys(scenarioSchema.entries)) expect(document).toContain(`\n| \`${word}\` |`);
  for (const word of Object.keys(SABOTAGES)) expect(document).toContain(`\`${word}\``);
  const [, example = ""] = /```yaml\n([\s\S]*?)```/.exec(document) ?? [];
  expect(problems(example)).toEqual([]);
});
