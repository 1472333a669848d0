// SPDX-License-Identifier: Apache-2.0
import type { ReportVerdict } from "../../core/report/document.ts";
import type { StatusProblem, StatusReport } from "../../core/report/status.ts";
import { counted } from "../../core/report/words.ts";
import { AGENT_TIMEOUT_MS, addCommand, type Program, type Session, usageError } from "../command.ts";
import { EXIT, exitOf } from "../exit.ts";
import { headline } from "../render/headline.ts";
import type { Paint, Style } from "../render/paint.ts";
import { aligned } from "../render/table.ts";
import { span, visible } from "../render/text.ts";
import type { SessionSource } from "../source/source.ts";

interface StatusOptions {
  readonly brief?: boolean;
  readonly wait?: boolean;
  readonly watch?: boolean;
}

const WAIT_MS = 60_000;
const POLL_MS = 500;
/** For the answer that is shown when the time is over. */
const LAST_MS = 500;
const REDRAW_MS = 2000;
const CLEAR = "\u001b[H\u001b[2J";

export function addStatus(program: Program): void {
  addCommand<StatusOptions>(
    program,
    {
      usage: "status",
      summary: "is the node's mesh as it should be: one screen, a verdict for each part",
      examples: [
        "ambient-cni status                     # exit 0: fine, 1: a problem, 3: no agent",
        "ambient-cni status --brief             # one line, for a probe",
        "ambient-cni status --wait --timeout 2m # until all is well",
      ],
    },
    (command) =>
      command
        .option("--brief", "one line")
        .option("--wait", "wait until all is well, for 60s or --timeout")
        .option("--watch", "again every two seconds"),
    async (session, options) => {
      if (options.wait && options.watch) usageError("--wait and --watch exclude each other");
      if (session.globals.from !== undefined && (options.wait || options.watch)) {
        usageError("--wait and --watch look at a node: a report stays as it is");
      }
      if (options.watch) return watch(session, options);
      return options.wait ? wait(session, options) : show(session, options, await session.source());
    },
  );
}

async function show(session: Session, { brief }: StatusOptions, source: SessionSource): Promise<number> {
  const status = await source.read("status");
  await session.print(status, () => (brief ? `${briefly(status)}\n` : statusText(status, session.paint)));
  if (source.unreachable !== undefined) return EXIT.unreachable;
  return overall(status) === "ok" ? EXIT.ok : EXIT.problem;
}

/** Only the agent can say that all is well. */
async function wait(session: Session, options: StatusOptions): Promise<number> {
  const deadline = session.env.now().getTime() + (session.globals.timeoutMs ?? WAIT_MS);
  for (;;) {
    const left = deadline - session.env.now().getTime();
    // --timeout is for all of it, whatever one question may take.
    const patience = Math.min(AGENT_TIMEOUT_MS, Math.max(LAST_MS, left));
    const agent = await session.agent(patience);
    const status = await agent.read("status").catch((error: unknown) => {
      if (exitOf(error) !== EXIT.unreachable) throw error;
      return undefined;
    });
    const well = status !== undefined && overall(status) === "ok";
    if (well || session.env.now().getTime() >= deadline) {
      return show(session, options, await session.source(Math.min(patience, LAST_MS)));
    }
    await session.env.pause(Math.min(POLL_MS, Math.max(1, left)));
  }
}

async function watch(session: Session, options: StatusOptions): Promise<number> {
  for (;;) {
    if (session.env.stdout.isTTY) session.env.stdout.write(CLEAR);
    await show(session, options, await session.source());
    await session.env.pause(REDRAW_MS);
  }
}

const RANK: readonly ReportVerdict[] = ["ok", "unknown", "warn", "error"];

/** The worst of all parts; what can't be told does not count. */
export function overall({ components }: StatusReport): "ok" | "warn" | "error" {
  const worst = Math.max(...components.map(({ verdict }) => RANK.indexOf(verdict)));
  return worst >= RANK.indexOf("error") ? "error" : worst >= RANK.indexOf("warn") ? "warn" : "ok";
}

/** One line: what is wrong, or how many pods are fine. */
export function briefly(status: StatusReport): string {
  const { components, pods, source } = status;
  const enrolled = (pods.enrolled ?? 0) + (pods.captured ?? 0);
  const wrong = components.filter(({ verdict }) => verdict === "warn" || verdict === "error").map(cause(status));
  if (status.version === null) wrong.unshift(source.note);
  if (wrong.length === 0) return `ok: ${counted(enrolled, "pod")} enrolled`;
  return visible(`${overall(status) === "error" ? "error" : "degraded"}: ${wrong.join("; ")}`);
}

const cause = ({ pods }: StatusReport) => {
  const failing = (pods.failing ?? 0) + (pods.pending ?? 0);
  const all = failing + (pods.enrolled ?? 0) + (pods.draining ?? 0);
  return ({ name, text }: StatusReport["components"][number]) =>
    name === "pods" && failing > 0 ? `${failing} of ${counted(all, "pod")} failing` : `${name}: ${text}`;
};

const SHOWN: Readonly<Record<ReportVerdict, readonly [string, Style]>> = {
  ok: ["OK", "green"],
  warn: ["WARN", "yellow"],
  error: ["ERROR", "red"],
  unknown: ["-", "dim"],
};

export function statusText(status: StatusReport, paint: Paint): string {
  const parts = status.components.map(({ name, verdict, text }) => {
    const [word, style] = SHOWN[verdict];
    return [`  ${name}   `, `${paint(style, word)}  `, visible(text)];
  });
  const problems = status.problems.map((problem) => [
    `${paint("red", "!")} ${visible(problem.object)}`,
    sentence(problem),
  ]);
  return headline(status) + aligned(parts) + aligned(problems);
}

function sentence({ object, code, message, attempts, nextTryMs }: StatusProblem): string {
  const again = nextTryMs === null ? "" : `, next try in ${span(nextTryMs / 1000)}`;
  const times = attempts > 1 ? ` ${attempts}x` : "";
  return visible(`${code}${times}${again}: ${message}   ambient-cni inspect ${object}`);
}
