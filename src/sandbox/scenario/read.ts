// SPDX-License-Identifier: Apache-2.0
import { readFileSync, statSync } from "node:fs";
import * as v from "valibot";
import { AgentError, messageOf } from "../../core/errors.ts";
import { Located, type Path } from "./located.ts";
import { wrongReferences } from "./references.ts";
import { type Scenario, scenarioSchema } from "./schema.ts";

const MAX_BYTES = 64 << 10;
/** More than these tell a reader nothing that mending them will not. */
const MAX_PROBLEMS = 20;

/** A file that is no scenario: every line of `problems` names file, line and value. */
export class ScenarioError extends AgentError {
  constructor(readonly problems: readonly string[]) {
    super("USAGE", problems.join("\n"));
  }
}

/** Reads a scenario file. @throws ScenarioError with a line for each thing that is wrong: file, line, value */
export function readScenario(file: string): Scenario {
  let text: string;
  try {
    const { size } = statSync(file);
    if (size > MAX_BYTES) throw new Error(`${size} bytes, and a scenario has at most ${MAX_BYTES}`);
    text = readFileSync(file, "utf8");
  } catch (error) {
    throw new ScenarioError([`no scenario ${file}: ${messageOf(error)}`]);
  }
  return parseScenario(file, text);
}

/** @throws ScenarioError, as `readScenario` */
export function parseScenario(file: string, text: string): Scenario {
  const located = parsed(file, text);
  if (typeof located.value !== "object" || located.value === null || Array.isArray(located.value)) {
    throw new ScenarioError([located.problem([], "not a mapping of title, namespaces, pods and steps")]);
  }
  const result = v.safeParse(scenarioSchema, located.value);
  const problems = result.success
    ? wrongReferences(result.output).map(({ path, message }) => located.problem(path, message))
    : result.issues.map((issue) => located.problem(pathOf(issue), sentence(issue)));
  if (problems.length > MAX_PROBLEMS) problems.splice(MAX_PROBLEMS, problems.length, "and more");
  if (!result.success || problems.length > 0) throw new ScenarioError(problems);
  return result.output;
}

function pathOf(issue: v.BaseIssue<unknown>): Path {
  return (issue.path ?? []).map(({ key }) => (typeof key === "number" ? key : String(key)));
}

function sentence(issue: v.BaseIssue<unknown>): string {
  if (issue.type !== "strict_object") return issue.message;
  if (issue.expected === "never") return "no such word here";
  return issue.received === "undefined" ? "is missing" : issue.message;
}

function parsed(file: string, text: string): Located {
  try {
    return Located.parse(file, text);
  } catch (error) {
    throw new ScenarioError([messageOf(error)]);
  }
}
