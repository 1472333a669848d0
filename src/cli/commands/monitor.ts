// SPDX-License-Identifier: Apache-2.0
import { type Command, InvalidArgumentError, Option } from "commander";
import { messageOf } from "../../core/errors.ts";
import { type FlowFilter, isWanted } from "../../core/flow/filter.ts";
import type { FlowLine } from "../../core/flow/line.ts";
import { FLOW_DIRECTIONS, FLOW_REASONS, FLOW_VERDICTS, type FlowDirection } from "../../core/flow/words.ts";
import { canonicalCidr } from "../../core/ip.ts";
import { addCommand, type Program, type Session } from "../command.ts";
import { EXIT } from "../exit.ts";
import { flowText, headNotes } from "../render/flow.ts";
import { visible } from "../render/text.ts";

interface MonitorOptions {
  readonly pod?: readonly string[];
  readonly namespace?: readonly string[];
  readonly verdict?: readonly string[];
  readonly direction?: FlowDirection;
  readonly src?: readonly string[];
  readonly dst?: readonly string[];
  readonly port?: readonly number[];
  readonly last?: number;
  readonly limit?: number;
}

export function addMonitor(program: Program): void {
  addCommand<MonitorOptions>(
    program,
    {
      usage: "monitor",
      summary: "connections as they are made: to ztunnel, past it, refused or dropped, and why",
      examples: [
        "ambient-cni monitor --pod shop/web --verdict passed,dropped",
        "ambient-cni monitor -o json > flows        # until Ctrl-C; read again with --from flows",
        "ambient-cni monitor --from flows --dst 10.96.0.0/12 --port 80",
      ],
    },
    define,
    async (session, options) => {
      const shown = new Shown(session, filterOf(options), options.limit);
      const signal = session.env.interruption();
      const { from } = session.globals;
      const status =
        from === undefined
          ? await live(session, shown, options, signal)
          : await recorded(session, shown, from, options.last, signal);
      session.env.stderr.write(shown.summary());
      return status;
    },
  );
}

function define(command: Command): Command {
  return command
    .option("--pod <pod>", "of this pod: [namespace/]name, its beginning, or uid", each(String))
    .option("-n, --namespace <name>", "of pods of this namespace", each(String))
    .option("--verdict <words>", "ztunnel, passed, refused, dropped, or a reason", each(parseVerdict))
    .addOption(new Option("--direction <way>", "seen from the pod").choices(FLOW_DIRECTIONS))
    .option("--src <cidr>", "from this address or network", each(parseCidr))
    .option("--dst <cidr>", "to this address or network", each(parseCidr))
    .option("--port <port>", "at either end", each(parseNumber("A port", 65_535)))
    .option("--last <n>", "first, so many flows of before", parseNumber("A number", 1000))
    .option("--limit <n>", "end after so many flows", parseNumber("A number", 1_000_000_000));
}

/** Several values: `a,b`, or the option several times. */
function each<T>(parse: (text: string) => T): (text: string, before?: readonly T[]) => readonly T[] {
  return (text, before = []) => [...before, ...text.split(",").map((one) => parse(one.trim()))];
}

function parseVerdict(text: string): string {
  const known: readonly string[] = [...FLOW_VERDICTS, ...FLOW_REASONS];
  if (!known.includes(text)) throw new InvalidArgumentError(`Verdicts and reasons: ${known.join(", ")}.`);
  return text;
}

function parseCidr(text: string): string {
  try {
    return canonicalCidr(text);
  } catch (error) {
    throw new InvalidArgumentError(messageOf(error));
  }
}

function parseNumber(what: string, most: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,10}$/.test(text) ? Number(text) : 0;
    if (value < 1 || value > most) throw new InvalidArgumentError(`${what} from 1 to ${most} is expected.`);
    return value;
  };
}

function filterOf(options: MonitorOptions): FlowFilter {
  const { pod = [], namespace = [], verdict = [], direction, src = [], dst = [], port = [] } = options;
  return {
    pods: pod,
    namespaces: namespace,
    verdicts: verdict,
    direction,
    sources: src,
    destinations: dst,
    ports: port,
  };
}

async function live(
  session: Session,
  shown: Shown,
  { last = 0 }: MonitorOptions,
  signal: AbortSignal,
): Promise<number> {
  const agent = await session.agent();
  for await (const line of agent.flows(last, signal)) if (!(await shown.take(line))) break;
  return EXIT.ok;
}

/** Lines of a file, or `-` for what comes by the standard input. */
async function recorded(
  session: Session,
  shown: Shown,
  from: string,
  last: number | undefined,
  signal: AbortSignal,
): Promise<number> {
  const { readRecording } = await import("../flow/recording.ts");
  const recording = readRecording(from, session.env, signal);
  let broken = 0;
  const tell = (number: number, why: string): void => {
    broken += 1;
    if (broken <= TOLD_MAX) session.env.stderr.write(`ambient-cni: line ${number}: ${visible(why)}\n`);
  };
  // Of all that was recorded only the last flows: they are known at the end.
  const kept: FlowLine[] = [];
  for await (const line of recording(tell)) {
    if (last === undefined) {
      if (!(await shown.take(line))) break;
    } else if (shown.count(line) && line.type === "flow") {
      kept.push(line);
      if (kept.length > last) kept.shift();
    }
  }
  for (const line of kept) if (!(await shown.write(line))) break;
  if (broken > TOLD_MAX) session.env.stderr.write(`ambient-cni: ${broken - TOLD_MAX} more lines that are none\n`);
  return broken === 0 ? EXIT.ok : EXIT.problem;
}

/** Lines that are wrong, each told; of more only the number. */
const TOLD_MAX = 5;

/** What is written of a stream, in the form that was asked for, and what is said at its end. */
class Shown {
  #flows = 0;
  #shown = 0;
  #lost = 0;

  constructor(
    private readonly session: Session,
    private readonly filter: FlowFilter,
    private readonly limit = Number.POSITIVE_INFINITY,
  ) {}

  /** Whether it is to be shown. */
  count(line: FlowLine): boolean {
    if (line.type === "flow") this.#flows += 1;
    if (line.type === "lost") this.#lost += line.events;
    return isWanted(line, this.filter);
  }

  /** False: that was the last one. */
  async take(line: FlowLine): Promise<boolean> {
    return !this.count(line) || (await this.write(line));
  }

  /** False: that was the last one. */
  async write(line: FlowLine): Promise<boolean> {
    const { env, globals, paint } = this.session;
    if (line.type === "flow") this.#shown += 1;
    switch (globals.format) {
      case "json":
        env.stdout.write(`${JSON.stringify(line)}\n`);
        break;
      case "yaml":
        env.stdout.write(`---\n${(await import("../render/yaml.ts")).yamlText(line)}`);
        break;
      default:
        if (line.type === "head") for (const note of headNotes(line)) env.stderr.write(`${note}\n`);
        else env.stdout.write(flowText(line, globals.format === "wide", paint));
    }
    return this.#shown < this.limit;
  }

  summary(): string {
    return `${this.#shown} of ${this.#flows} flows shown, ${this.#lost} lost\n`;
  }
}
