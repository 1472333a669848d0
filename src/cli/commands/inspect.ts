// SPDX-License-Identifier: Apache-2.0
import type { DecisionReport } from "../../core/report/decisions.ts";
import { findPod } from "../../core/report/find-pod.ts";
import type { FactReport, InspectReport } from "../../core/report/inspect.ts";
import { podTitle } from "../../core/report/pods.ts";
import { addCommand, type Program, usageError } from "../command.ts";
import { EXIT } from "../exit.ts";
import { sourceLine } from "../render/headline.ts";
import type { Paint, Style } from "../render/paint.ts";
import { aligned } from "../render/table.ts";
import { visible } from "../render/text.ts";

interface InspectOptions {
  readonly diff?: boolean;
  readonly netnsShell?: boolean;
}

export function addInspect(program: Program): void {
  addCommand<InspectOptions>(
    program,
    {
      usage: "inspect <pod> [command...]",
      summary: "one pod: what is wanted, what is in the kernel, and where they disagree",
      examples: [
        "ambient-cni inspect shop/web",
        "ambient-cni inspect 10.66.0.2 --diff   # only disagreements; exit 1 if there are any",
        "ambient-cni inspect web --netns-shell -- ss -ltn",
      ],
    },
    (command) =>
      command
        .option("--diff", "only where what is wanted and what is there disagree")
        .option("--netns-shell", "a shell in its network namespace, or the command after --"),
    async (session, { diff = false, netnsShell = false }, [reference = "", ...command]) => {
      if (command.length > 0 && !netnsShell) usageError("a command is run with --netns-shell only");
      if (netnsShell && session.globals.from !== undefined)
        usageError("--from reads a report, and a shell needs the node");
      const source = await session.source();
      const found = findPod((await source.read("pods", { meant: reference })).pods, reference);
      const { uid } = found;
      if (netnsShell) {
        const shell = await import("../netns-shell.ts");
        return shell.netnsShell(session.env, { uid, title: podTitle(found), command });
      }
      const report = await source.read("inspect", { pod: uid });
      const wrong = disagreements(report);
      await session.print(diff ? { ...report, facts: wrong } : report, () =>
        diff ? diffText(report, wrong, session.paint) : inspectText(report, session.paint),
      );
      if (source.unreachable?.trouble === "broken") return EXIT.unreachable;
      return wrong.length === 0 ? EXIT.ok : EXIT.problem;
    },
  );
}

/** What is not as it should be. */
export function disagreements({ facts, pod, eligibility }: InspectReport): readonly FactReport[] {
  const wrong = facts.filter(({ ok }) => ok === false);
  // Belongs to the mesh, and nothing of it could be looked at or nothing looks wrong: the failure says why.
  if (eligibility?.verdict === "ambient" && wrong.length === 0 && pod.failure !== null) {
    return [{ name: "enrolment", ok: false, text: `${pod.failure.code}: ${pod.failure.message}` }];
  }
  return wrong;
}

const MARK: readonly (readonly [ok: boolean | null, mark: string, style: Style])[] = [
  [true, "√", "green"],
  [false, "×", "red"],
  [null, "·", "dim"],
];

function factLine({ name, ok, text }: FactReport, paint: Paint): readonly string[] {
  const [, mark, style] = MARK.find(([one]) => one === ok) ?? [null, "·", "dim"];
  return [`  ${paint(style, mark)} ${visible(name)}`, visible(text)];
}

function diffText(report: InspectReport, wrong: readonly FactReport[], paint: Paint): string {
  const title = visible(podTitle(report.pod));
  // Without the agent nobody knows what should be: only what belongs together in the kernel is compared.
  const told =
    report.eligibility === null
      ? "nothing is seen to be wrong; what should be, only the agent knows"
      : "no disagreement";
  if (wrong.length === 0) return `${sourceLine(report)}${title}: ${told}\n`;
  return `${sourceLine(report)}${title}\n${aligned(wrong.map((fact) => factLine(fact, paint)))}`;
}

export function inspectText(report: InspectReport, paint: Paint): string {
  const { pod, identity, eligibility, desired, facts, counters, existing } = report;
  const rows = (entries: readonly (readonly [string, string | null])[]) =>
    aligned(entries.flatMap(([name, value]) => (value === null ? [] : [[`  ${visible(name)}`, visible(value)]])));
  const section = (title: string, body: string) => (body === "" ? "" : `${paint("bold", title)}\n${body}`);
  const pairs = (record: Readonly<Record<string, string>>) =>
    Object.entries(record)
      .map(([key, value]) => `${key}=${value}`)
      .sort()
      .join(", ");
  const failure = pod.failure === null ? null : `${pod.failure.code}, ${pod.failure.attempts}x: ${pod.failure.message}`;
  return [
    sourceLine(report),
    section(
      visible(podTitle(pod)),
      rows([
        ["uid", pod.uid],
        ["addresses", pod.ips.join(", ") || "none"],
        ["netns", pod.netns],
        ["phase", pod.phase],
        ["service account", identity?.serviceAccount ?? null],
        ["labels", identity === null ? null : pairs(identity.labels)],
        ["namespace labels", identity?.namespaceLabels == null ? null : pairs(identity.namespaceLabels)],
        ["annotations", identity === null ? null : pairs(identity.annotations) || null],
      ]),
    ),
    section(
      "mesh",
      rows([
        ["state", pod.mesh === "none" ? "not in the mesh" : pod.mesh],
        ["because", eligibility === null ? pod.detail : eligibility.detail || eligibility.reason],
        ["engine", pod.engine],
        ["ztunnel", pod.ztunnel],
        ["annotation", pod.annotation],
        ["failure", failure],
        ["older connections", existing === null ? null : olderText(existing)],
      ]),
    ),
    section("wanted", rows(Object.entries(desired))),
    section("kernel", aligned(facts.map((fact) => factLine(fact, paint)))),
    section("decisions", aligned(report.decisions.map(decisionLine))),
    section("counted since capture", rows(Object.entries(counters).map(([name, count]) => [name, String(count)]))),
  ].join("");
}

function olderText(existing: number): string {
  return existing === 0 ? "none" : `${existing}, outside the mesh until they close (ambient-cni reset-existing)`;
}

function decisionLine({ at, what, engine, milliseconds, reason, detail, times }: DecisionReport): readonly string[] {
  const ms = milliseconds === null ? "" : `${milliseconds.toFixed(1)} ms`;
  const why = [engine ?? "", reason, detail].filter((part) => part !== "").join(", ");
  return [`  ${at.slice(11, 23)}`, visible(what) + (times > 1 ? ` (${times}x)` : ""), ms, visible(why)];
}
