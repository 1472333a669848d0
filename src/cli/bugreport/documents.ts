// SPDX-License-Identifier: Apache-2.0

import type { DocumentName, Documents } from "../../core/report/documents.ts";
import { findPod } from "../../core/report/find-pod.ts";
import type { PodReport } from "../../core/report/pods.ts";
import { redactValue } from "../../core/report/redact.ts";
import { portions } from "../../netns/scan.ts";
import { answererOf, type CheckReport, runChecks } from "../check/check.ts";
import { CHECKS } from "../check/checks.ts";
import { openContext } from "../check/context.ts";
import type { Session } from "../command.ts";
import { checksText } from "../commands/check.ts";
import { podsText } from "../commands/pods.ts";
import { statusText } from "../commands/status.ts";
import { EXIT, exitOf } from "../exit.ts";
import { plain } from "../render/paint.ts";
import type { Query, Source } from "../source/source.ts";
import type { Collection } from "./collection.ts";
import { documentPath, isPlainName } from "./layout.ts";
import { fetchMetrics } from "./metrics.ts";

/** About the node as a whole, beside its status and its pods. Without an agent, engines are tried now: last. */
const OTHERS = ["config", "version", "log", "decisions", "engines"] as const;

/** Questions that the agent has at the same time: it answers one after the other, and need not wait for the next. */
const LANES = 3;

export interface CollectedFrom {
  readonly session: Session;
  /** What the session's source says, each document once: checks look at what is written. */
  readonly source: Source;
  readonly monitoringPort: number;
  /** Of all pods only this one in detail. */
  readonly reference: string | undefined;
}

export interface Collected {
  /** Name of the node, where it is known. */
  readonly node: string | null;
  /** Those that the report is about, the ones in trouble first. */
  readonly pods: readonly PodReport[];
}

/**
 * What the agent or the kernel says about the node, as documents and the most important as text.
 * @throws AgentError NOT_PERMITTED, as nothing would come of it; POD_NOT_FOUND | POD_AMBIGUOUS for `reference`
 */
export async function collectDocuments(
  collection: Collection,
  { session, source, monitoringPort, reference }: CollectedFrom,
): Promise<Collected> {
  const collect = async <Name extends DocumentName>(name: Name): Promise<Documents[Name] | undefined> => {
    let denied: unknown;
    const document = await collection.document(documentPath(name), () =>
      source.read(name).catch((error: unknown) => {
        if (exitOf(error) === EXIT.denied) denied = error;
        throw error;
      }),
    );
    if (denied !== undefined) throw denied;
    return document;
  };
  const status = await collect("status");
  const pods = await collect("pods");
  const { strict } = collection;
  if (status !== undefined) await collection.text("text/status.txt", () => statusText(safe(status, strict), plain));
  if (pods !== undefined) await collection.text("text/pods.txt", () => podsText(safe(pods, strict), true));
  const chosen = pods === undefined ? [] : choose(pods.pods, reference);
  for (const name of OTHERS) await collect(name);
  // An agent of another version does not know these two: asked by themselves, they change nothing for the others.
  const alone = await session.source();
  const lines = collection.omits(documentPath("lines"))
    ? undefined
    : await collection.document(documentPath("lines"), () => alone.read("lines"));
  if (lines !== undefined) {
    await collection.text("text/log.txt", () => lines.lines.map((line) => `${line}\n`).join(""));
  }
  await collection.text("metrics.txt", async () => {
    const told = await alone.read("metrics").catch(() => undefined);
    return told?.text ?? fetchMetrics(monitoringPort);
  });
  return { node: status?.node ?? null, pods: chosen };
}

/** Everything about each of these pods, and what is checked. */
export async function collectFindings(
  collection: Collection,
  { session, source }: Pick<CollectedFrom, "session" | "source">,
  pods: readonly PodReport[],
): Promise<void> {
  const waiting = [...pods];
  const portion = portions();
  const lane = async () => {
    for (let pod = waiting.shift(); pod !== undefined; pod = waiting.shift()) {
      await portion();
      const { uid } = pod;
      const path = documentPath("inspect", uid);
      if (isPlainName(uid)) await collection.document(path, () => source.read("inspect", { pod: uid }));
      else collection.fail(path, "its uid can't be the name of a file");
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  // Last: an agent of another version may not know all that is asked, and then nothing more is asked of it.
  await collectChecks(collection, session, source);
}

/** What `ambient-cni check` says, here and now. */
async function collectChecks(collection: Collection, session: Session, source: Source): Promise<void> {
  const report = await collection.document(documentPath("check"), async () => {
    const context = await openContext({
      ...session,
      source: async () => ({ ...bound(source), unreachable: undefined }),
    });
    const checks: CheckReport[] = [];
    for await (const one of runChecks(CHECKS, context)) {
      checks.push(one);
      // Some ask the API server, which may be what is away.
      const next = CHECKS[checks.length];
      if (next === undefined || !collection.late) continue;
      collection.fail("text/check.txt", `no time left for ${next.code} and those after it`);
      break;
    }
    return { ...context.view.head(), source: (await answererOf(context)).source, checks };
  });
  if (report === undefined) return;
  await collection.text("text/check.txt", () => checksText(safe(report, collection.strict).checks, plain));
}

function bound(source: Source): Source {
  return { read: (name, query) => source.read(name, query) };
}

/** Reads each document once. */
export class OnceSource implements Source {
  readonly #known = new Map<string, Promise<unknown>>();

  constructor(private readonly source: Source) {}

  async read<Name extends DocumentName>(name: Name, query: Query = {}): Promise<Documents[Name]> {
    const key = `${name} ${new URLSearchParams(query)}`;
    const reading = this.#known.get(key) ?? this.source.read(name, query);
    this.#known.set(key, reading);
    // The entry of a name is the document of that name.
    return (await reading) as Documents[Name];
  }
}

/** A table whose cells were redacted one by one keeps its columns. */
function safe<T extends object>(document: T, strict: boolean): T {
  // Only texts in it change, and none that its schema fixes.
  return redactValue(document, strict) as T;
}

const FIRST: readonly PodReport["mesh"][] = ["failing", "pending", "unwanted", "unknown", "draining"];

function choose(pods: readonly PodReport[], reference: string | undefined): readonly PodReport[] {
  if (reference !== undefined) return [findPod(pods, reference)];
  const rank = ({ mesh }: PodReport) => (FIRST.includes(mesh) ? FIRST.indexOf(mesh) : FIRST.length);
  return pods.filter(({ hostNetwork }) => !hostNetwork).sort((a, b) => rank(a) - rank(b));
}
