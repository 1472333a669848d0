// SPDX-License-Identifier: Apache-2.0
import { AgentError, codeOf, messageOf } from "../../core/errors.ts";
import { splitDestination } from "../../core/flow/destination.ts";
import { canonicalIp } from "../../core/ip.ts";
import { findPod } from "../../core/report/find-pod.ts";
import type { PodReport } from "../../core/report/pods.ts";
import type { HopReport, TraceReport } from "../../core/report/trace.ts";
import { addCommand, type Program, usageError } from "../command.ts";
import { EXIT } from "../exit.ts";
import type { Paint, Style } from "../render/paint.ts";
import { aligned } from "../render/table.ts";
import { visible } from "../render/text.ts";

/** ms: a connection that nobody answers takes some seconds. */
const TIMEOUT_MS = 10_000;

export function addTrace(program: Program): void {
  addCommand(
    program,
    {
      usage: "trace <pod> <destination>",
      summary: "one connection from a pod: what is decided about it, who answers, where it goes on",
      examples: [
        "ambient-cni trace shop/web 10.96.0.20:80",
        "ambient-cni trace shop/web shop/cart:8080      # a pod of this node; without a port, 80",
        "ambient-cni trace shop/web '[fd66::3]:8080' -o json",
      ],
    },
    (command) => command,
    async (session, _options, [reference = "", destination = ""]) => {
      const to = asked(destination);
      const source = await session.agent(session.globals.timeoutMs ?? TIMEOUT_MS);
      const { pods } = await source.read("pods");
      const { uid } = findPod(pods, reference);
      const report = await source.read("trace", { pod: uid, to: addressed(to, pods) });
      await session.print(report, () => traceText(report, session.paint));
      return report.verdict === "ztunnel" || report.verdict === "passed" ? EXIT.ok : EXIT.problem;
    },
  );
}

function asked(destination: string): ReturnType<typeof splitDestination> {
  try {
    return splitDestination(destination);
  } catch (error) {
    usageError(messageOf(error));
  }
}

/** With an address in place of a pod of this node. */
function addressed({ host, port }: ReturnType<typeof splitDestination>, pods: readonly PodReport[]): string {
  const address = isAddress(host) ? host : podOf(pods, host).ips[0];
  if (address === undefined) usageError(`${host} has no address yet`);
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

/** Names are not resolved: what a pod's resolver would say is a question of its own. */
function podOf(pods: readonly PodReport[], host: string): PodReport {
  try {
    return findPod(pods, host);
  } catch (error) {
    if (codeOf(error) !== "POD_NOT_FOUND") throw error;
    const remedy = error instanceof AgentError ? error.remedy : undefined;
    throw new AgentError("POD_NOT_FOUND", `${JSON.stringify(host)} is no address, and no pod of this node`, remedy);
  }
}

function isAddress(text: string): boolean {
  try {
    canonicalIp(text);
    return true;
  } catch {
    return false;
  }
}

const MARK: Readonly<Record<HopReport["result"], readonly [string, Style]>> = {
  ok: ["√", "green"],
  failed: ["×", "red"],
  unseen: ["·", "dim"],
};

export function traceText({ pod, destination, hops, verdict, problem }: TraceReport, paint: Paint): string {
  const title = `${visible(pod)} > ${visible(destination)}`;
  if (problem !== null) return `${paint("red", "FAIL")} ${title}: ${visible(problem)}\n`;
  const lines = hops.map(({ milliseconds, hop, result, text }) => {
    const [mark, style] = MARK[result];
    return [`  ${paint(style, mark)} ${visible(hop)}`, `${milliseconds.toFixed(1).padStart(7)} ms`, visible(text)];
  });
  const style: Style = verdict === "ztunnel" ? "green" : verdict === "passed" ? "yellow" : "red";
  return `${title}\n${aligned(lines)}${paint(style, WORDS[verdict ?? "unanswered"])}\n`;
}

const WORDS: Readonly<Record<NonNullable<TraceReport["verdict"]>, string>> = {
  ztunnel: "handed to ztunnel",
  passed: "past ztunnel",
  refused: "refused",
  unanswered: "not answered",
};
