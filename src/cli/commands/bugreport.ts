// SPDX-License-Identifier: Apache-2.0
import { access, constants } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { Option } from "commander";
import { DEFAULT_RUN_DIR } from "../../core/constants.ts";
import { AgentError, codeOf } from "../../core/errors.ts";
import { counted } from "../../core/report/words.ts";
import { addCommand, type Program, type Session, usageError } from "../command.ts";
import { EXIT } from "../exit.ts";
import { FORMATS } from "../globals.ts";
import { visible } from "../render/text.ts";

interface BugreportOptions {
  /** A file, or a form of the output. */
  readonly output?: string;
  readonly pod?: string;
  readonly redact?: boolean;
}

/** Nothing is begun after that, so that all is done within 10 s. */
const BUDGET_MS = 7000;

export function addBugreport(program: Program): void {
  addCommand<BugreportOptions>(
    program,
    {
      usage: "bugreport",
      summary: "everything about the node in one archive of plain files, without credentials",
      examples: [
        "ambient-cni bugreport -o report.tgz",
        "ambient-cni bugreport --pod shop/web --redact",
        "ambient-cni status --from report.tgz   # reading commands take one, anywhere",
      ],
      output: new Option("-o, --output <file>", "where to (default: ambient-cni-NODE-TIME.tgz here)"),
    },
    (command) =>
      command
        .option("--pod <pod>", "of all pods only this one in detail")
        .option("--redact", "leave out also annotations, given settings, logs and CNI configurations"),
    run,
  );
}

async function run(session: Session, { output, pod, redact = false }: BugreportOptions): Promise<number> {
  const { env, globals } = session;
  if (globals.from !== undefined) usageError("--from names a report, and bugreport makes one");
  if (output === "") usageError("-o names no file");
  const [
    { Collection },
    { collectDocuments, collectFindings, OnceSource },
    { collectKernel },
    { collectNode },
    { packReport },
  ] = await Promise.all([
    import("../bugreport/collection.ts"),
    import("../bugreport/documents.ts"),
    import("../bugreport/kernel.ts"),
    import("../bugreport/node.ts"),
    import("../bugreport/pack.ts"),
  ]);
  const [{ knownSecrets }, { viewNode }, { atomicWrite }] = await Promise.all([
    import("../bugreport/secrets.ts"),
    import("../source/kernel/node-view.ts"),
    import("../../sys/files.ts"),
  ]);
  await assertWritable(isFile(output) ? dirname(output) : ".");
  const began = env.now();
  const view = viewNode(env, "");
  const { config } = view;
  const secrets = knownSecrets(env.environment);
  const collection = new Collection({ strict: redact, secrets, budgetMs: BUDGET_MS });
  const source = new OnceSource(await session.source());
  const { monitoringPort } = config;
  const { node, pods } = await collectDocuments(collection, { session, source, monitoringPort, reference: pod });
  const uids = pods.map(({ uid }) => uid);
  // One after the other: side by side with the agent's looks, those of this process and its programs took longer.
  await collectFindings(collection, { session, source }, pods);
  await collectNode(collection, view);
  await collectKernel(collection, view, uids);
  const file = isFile(output) ? output : fileName(node ?? config.nodeName, began);
  await atomicWrite(file, await packReport(collection.files(), began), 0o600);
  const seconds = (env.now().getTime() - began.getTime()) / 1000;
  const { paths, errors } = collection;
  await session.print({ ...view.head(), file, items: paths, failed: errors, seconds }, () => {
    const first = `collected ${counted(paths.length, "item")} in ${seconds.toFixed(1)} s (${groups(paths)}); `;
    const without = redact ? "credentials and given values" : "credentials";
    return `${first}${errors.length} failed; without ${without}\n${visible(file)}\n`;
  });
  return EXIT.ok;
}

/** Before some seconds of collecting: in the agent's pod most directories are read-only. @throws AgentError REPORT_UNWRITABLE */
async function assertWritable(directory: string): Promise<void> {
  try {
    await access(directory, constants.W_OK);
  } catch (error) {
    throw new AgentError(
      "REPORT_UNWRITABLE",
      `no report can be written to ${resolve(directory)}: ${codeOf(error)}`,
      `-o names a file elsewhere; in the agent's pod ${DEFAULT_RUN_DIR} is a directory of the node`,
    );
  }
}

function isFile(output: string | undefined): output is string {
  return output !== undefined && !FORMATS.some((format) => format === output);
}

function fileName(node: string, at: Date): string {
  const name = node.replace(/[^A-Za-z0-9_.-]/g, "_").slice(0, 64) || "node";
  return `ambient-cni-${name}-${at.toISOString().replace(/[-:]|\.\d+/g, "")}.tgz`;
}

const GROUPS = ["documents", "text", "inspect", "metrics", "node", "kernel"];

/** `documents x8, inspect x3, kernel x12`. */
function groups(paths: readonly string[]): string {
  const counts = new Map(GROUPS.map((group) => [group, 0]));
  for (const path of paths) {
    const [folder = "", next = "", more] = path.split("/");
    const group = folder === "documents" && more !== undefined ? next : folder.replace(/\.txt$/, "");
    counts.set(group, (counts.get(group) ?? 0) + 1);
  }
  const found = [...counts].filter(([, count]) => count > 0);
  return found.map(([group, count]) => (count === 1 ? group : `${group} x${count}`)).join(", ");
}
