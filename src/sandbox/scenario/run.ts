// SPDX-License-Identifier: Apache-2.0
import { ECHO_PORT } from "../app/protocol.ts";
import { AppError } from "../app/remote.ts";
import type { Checks } from "../checks.ts";
import { expectEqual, expectThat } from "../checks.ts";
import { nodeCommand } from "../node-command.ts";
import { ipOf } from "../pod-records.ts";
import type { Sandbox } from "../sandbox.ts";
import { until } from "../until.ts";
import { connectStep } from "./connect.ts";
import { sabotage } from "./sabotage.ts";
import type { Scenario, Step, StepOf } from "./schema.ts";
import { Stage } from "./stage.ts";
import { titleOf } from "./title.ts";
import { waitStep } from "./wait.ts";

/** Steps that later ones stand on: the scenario ends where one fails. */
const FOUNDATIONS = ["start", "stop", "kill", "delete", "open"];
const COMMAND_TRIES_MS = 200;

export interface ScenarioRun {
  readonly scenario: Scenario;
  /** In the order of their names: node1, node2. */
  readonly sandboxes: readonly Sandbox[];
  /** dist/agent.mjs */
  readonly program: string;
  readonly checks: Checks;
}

/**
 * Plays a scenario in sandboxes that are up and empty; each step is a check. @throws Error when a step fails that
 * the others stand on
 */
export async function runScenario({ scenario, sandboxes, program, checks }: ScenarioRun): Promise<Stage> {
  const stage = new Stage(scenario, sandboxes);
  const [first] = sandboxes;
  for (const [name, labels] of Object.entries(scenario.namespaces)) {
    first?.api.put({ kind: "Namespace", metadata: { name, labels } });
  }
  for (const [index, step] of scenario.steps.entries()) {
    const title = step.title ?? titleOf(step);
    const passed = await checks.check(`step-${index + 1}`, title, () => take(stage, step, program));
    if (!passed && FOUNDATIONS.some((word) => word in step)) {
      throw new Error(`step ${index + 1} failed, and the others stand on it: ${checks.all.at(-1)?.evidence}`);
    }
  }
  return stage;
}

async function take(stage: Stage, step: Step, program: string): Promise<string> {
  if ("start" in step) return startStep(stage, step);
  if ("stop" in step) return endStep(stage, step.stop, step.node, "SIGTERM");
  if ("kill" in step) return endStep(stage, step.kill, step.node, "SIGKILL");
  if ("connect" in step) return connectStep(stage, step);
  if ("wait" in step) return waitStep(stage, step);
  if ("run" in step) return runStep(stage, step, program);
  if ("open" in step) return openStep(stage, step);
  if ("say" in step) return sayStep(stage, step);
  if ("delete" in step) {
    await stage.deletePod(step.delete);
    return "DEL of each plugin succeeded";
  }
  if ("sabotage" in step) {
    const pod = stage.pod(step.sabotage);
    return sabotage(stage.nodeOf(step.sabotage), pod, step.by);
  }
  if ("annotate" in step) return stage.annotate(step.annotate, step.with);
  if ("label" in step) return stage.label(step.label, step.with);
  return stage.label(step.unlabel, Object.fromEntries(step.keys.map((key) => [key, null])));
}

async function startStep(stage: Stage, { start, node, fails }: StepOf<"start">): Promise<string> {
  const facts: string[] = [];
  for (const subject of start) {
    try {
      facts.push(await startOne(stage, subject, node));
    } catch (error) {
      if (fails === undefined) throw error;
      const message = String(error);
      expectThat(`it failed otherwise than with ${JSON.stringify(fails)}: ${message}`, message.includes(fails));
      return `failed as it should: ${message}`;
    }
  }
  expectThat(`it started, and should have failed with ${JSON.stringify(fails)}`, fails === undefined);
  return facts.join("; ");
}

async function startOne(stage: Stage, subject: string, node: string | undefined): Promise<string> {
  if (subject.includes("/")) {
    const pod = await stage.startPod(subject);
    return `${subject} at ${pod.ips.join(", ")}`;
  }
  const sandboxes = stage.nodes(node);
  for (const sandbox of sandboxes) {
    if (subject === "agent") await startAgent(sandbox);
    else await startZtunnel(sandbox);
  }
  const engines = subject === "agent" ? await Promise.all(sandboxes.map((sandbox) => sandbox.engine())) : [];
  return `${subject} of ${sandboxes.map(({ name }) => name).join(", ")}${engines.length === 0 ? "" : `: ${engines.join(", ")}`}`;
}

async function startAgent(sandbox: Sandbox): Promise<void> {
  if (sandbox.agent?.running === true) throw new Error(`the agent of ${sandbox.name} runs already`);
  await sandbox.startAgent();
  // A ztunnel that was there before comes back in its own time, and pods of the mesh can't start before it has.
  if (runningZtunnels(sandbox) > 0) await sandbox.ztunnelsConnected(runningZtunnels(sandbox));
}

async function startZtunnel(sandbox: Sandbox): Promise<void> {
  sandbox.startZtunnel();
  if (sandbox.agent?.running === true) await sandbox.ztunnelsConnected(runningZtunnels(sandbox));
}

const runningZtunnels = ({ ztunnels }: Sandbox): number => ztunnels.filter(({ child }) => child.running).length;

async function endStep(
  stage: Stage,
  what: "agent" | "ztunnel",
  node: string | undefined,
  signal: "SIGTERM" | "SIGKILL",
): Promise<string> {
  for (const sandbox of stage.nodes(node)) {
    if (what === "agent") await sandbox.endAgent(signal);
    else {
      for (const { child } of sandbox.ztunnels) {
        if (signal === "SIGTERM") await child.end(10_000);
        else {
          child.signal("SIGKILL");
          await child.exited;
        }
      }
    }
  }
  return `${what} ended by ${signal}`;
}

async function openStep(stage: Stage, { open, from, to, family }: StepOf<"open">): Promise<string> {
  const { server, clientSeen } = await stage.app(from).open(open, ipOf(stage.pod(to), family), ECHO_PORT);
  expectEqual("who answered", server, to.slice(to.indexOf("/") + 1));
  stage.opened.set(open, from);
  return `${server} sees ${clientSeen}`;
}

async function sayStep(stage: Stage, { say, expect }: StepOf<"say">): Promise<string> {
  const from = stage.opened.get(say);
  if (from === undefined) throw new Error(`connection ${say} was not opened`);
  const line = `${say} ${Date.now()}`;
  const answer = await stage
    .app(from)
    .say(say, line)
    .catch((error: unknown) => {
      if (error instanceof AppError) return error;
      throw error;
    });
  if (expect === "closed") {
    expectThat("it still echoes", answer instanceof AppError);
    return `closed: ${String(answer)}`;
  }
  expectEqual("echo", answer instanceof AppError ? answer.message : answer, line);
  return "it echoes";
}

async function runStep(stage: Stage, step: StepOf<"run">, program: string): Promise<string> {
  const { node, run, expect, within } = step;
  const { contains = [], lacks = [] } = expect;
  let seen = "";
  const attempt = async () => {
    const { status, stdout, stderr } = await nodeCommand(stage.node(node).node, program, run.trim().split(/\s+/));
    const text = stdout + stderr;
    seen = `exit ${status}\n${text.trimEnd()}`.replaceAll("\n", "\n      ");
    const wrong = [
      ...(expect.status !== undefined && expect.status !== status
        ? [`exit status ${status}, not ${expect.status}`]
        : []),
      ...contains.filter((part) => !text.includes(part)).map((part) => `${JSON.stringify(part)} is not in it`),
      ...lacks.filter((part) => text.includes(part)).map((part) => `${JSON.stringify(part)} is in it`),
    ];
    return wrong.join("; ");
  };
  let wrong = await attempt();
  if (wrong !== "" && within !== undefined) {
    await until(
      run,
      async () => {
        await new Promise((resolve) => setTimeout(resolve, COMMAND_TRIES_MS));
        wrong = await attempt();
        return wrong === "";
      },
      within,
    ).catch(() => undefined);
  }
  if (wrong !== "") throw new Error(`${wrong}: ${seen}`);
  return seen;
}
