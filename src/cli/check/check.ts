// SPDX-License-Identifier: Apache-2.0
// What `ambient-cni check` is made of. Every check tries or reads the thing itself, and has a code that stays.
import { messageOf } from "../../core/errors.ts";
import type { DocumentSource } from "../../core/report/document.ts";
import type { DocumentName, Documents } from "../../core/report/documents.ts";
import type { InspectReport } from "../../core/report/inspect.ts";
import type { PodReport } from "../../core/report/pods.ts";
import type { ProofsReport } from "../../core/report/proofs.ts";
import type { SettingsReport } from "../../core/report/settings.ts";
import type { NodeView } from "../source/kernel/node-view.ts";
import type { Facts } from "./facts.ts";

export const CATEGORIES = ["kernel", "cni", "ztunnel", "pods", "agent"] as const;
export type Category = (typeof CATEGORIES)[number];

/** skip: not known, because it can't be seen from here. Never said of what was seen and is well. */
export type CheckVerdict = "ok" | "warn" | "fail" | "skip";

export interface CheckResult {
  readonly verdict: CheckVerdict;
  /** What was seen. */
  readonly evidence: string;
}

/** Proofs of one pod. */
export interface MadeProofs extends Pick<ProofsReport, "proofs" | "problem"> {
  /** Packets that reverse path filtering has dropped in its netns meanwhile; undefined: they can't be counted. */
  readonly dropped: number | undefined;
}

export interface CheckContext {
  readonly view: NodeView;
  readonly facts: Facts;
  /** Documents of the agent, or of the kernel without one; read once each. */
  read<Name extends DocumentName>(name: Name): Promise<Documents[Name]>;
  /** Pods as the kernel shows them, whoever answers for the rest. */
  kernelPods(): Promise<readonly PodReport[]>;
  /** Everything about one pod; read once each. */
  inspect(uid: string): Promise<InspectReport>;
  /** Proofs of one captured pod; made once each. */
  verify(uid: string): Promise<MadeProofs>;
}

export interface Check {
  /** AMB-nnn; never used for anything else again. */
  readonly code: string;
  readonly category: Category;
  /** What is so when all is well. */
  readonly title: string;
  /** Also where the agent has not been installed yet. */
  readonly pre: boolean;
  /** What to do when it is not so. */
  readonly fix: string;
  /** A paragraph of docs/checks.md: what is looked at, and what it means. */
  readonly about: string;
  /** Whom it waits for, if anybody: it is begun before the others, and costs no time of its own. */
  readonly asks?: "api" | "agent";
  run(context: CheckContext): Promise<CheckResult> | CheckResult;
}

export interface CheckReport {
  readonly code: string;
  readonly category: Category;
  readonly title: string;
  readonly verdict: CheckVerdict;
  readonly evidence: string;
  /** null where nothing is to be done. */
  readonly fix: string | null;
  readonly milliseconds: number;
}

export const ok = (evidence: string): CheckResult => ({ verdict: "ok", evidence });
export const warn = (evidence: string): CheckResult => ({ verdict: "warn", evidence });
export const fail = (evidence: string): CheckResult => ({ verdict: "fail", evidence });
export const skip = (evidence: string): CheckResult => ({ verdict: "skip", evidence });

/** Captured pods that ztunnel serves: those in which something can be proved. */
export function servedPods(pods: readonly PodReport[]): readonly PodReport[] {
  return pods.filter(({ mesh, ztunnel }) => isCaptured(mesh) && ztunnel !== null);
}

export const isCaptured = (mesh: PodReport["mesh"]): boolean => mesh === "enrolled" || mesh === "captured";

/** The agent's settings; undefined without it on the node itself, where this process's settings are not the agent's. */
export async function agentSettings({ read, view }: CheckContext): Promise<SettingsReport["settings"] | undefined> {
  const { source, settings } = await read("config");
  return source.from === "kernel" && view.config.hostRoot === "/" ? undefined : settings;
}

/** A backstop: whoever is asked has a shorter one, in ms. */
const DEADLINE_MS = 10_000;

/**
 * Runs them, and tells of each in their order. Those that ask somebody are begun first: the API server, a pod's proofs
 * and this process take their time side by side. The others run one after the other, and wait for none of those.
 * Without the agent this process makes the proofs itself, and is not disturbed in it. Whoever stops listening has
 * nothing more begun.
 */
export async function* runChecks(checks: readonly Check[], context: CheckContext): AsyncGenerator<CheckReport> {
  const { from } = (await answererOf(context)).source;
  const isBegunFirst = ({ asks }: Check) => asks === "api" || (asks === "agent" && from === "agent");
  const first = new Map(checks.filter(isBegunFirst).map((check) => [check, runCheck(check, context)]));
  let isHeard = true;
  let turn: Promise<unknown> = Promise.resolve();
  const inTurn = (check: Check): Promise<CheckReport | undefined> => {
    const report = turn.then(() => (isHeard ? runCheck(check, context) : undefined));
    turn = report;
    return report;
  };
  try {
    for (const making of checks.map((check) => first.get(check) ?? inTurn(check))) {
      const report = await making;
      if (report !== undefined) yield report;
    }
  } finally {
    isHeard = false;
  }
}

export interface Answerer {
  readonly source: DocumentSource;
  /** Why neither the agent nor the kernel could be asked. */
  readonly error?: unknown;
}

/** Who answers for the pods: the agent, or the kernel without it. Never throws: then the kernel alone is looked at. */
export async function answererOf({ read }: Pick<CheckContext, "read">): Promise<Answerer> {
  try {
    // The smallest document.
    return { source: (await read("version")).source };
  } catch (error) {
    return { source: { from: "kernel", note: messageOf(error) }, error };
  }
}

/** Runs one. What it can't find out is no verdict about the node. */
export async function runCheck(check: Check, context: CheckContext): Promise<CheckReport> {
  const { code, category, title, fix } = check;
  const began = performance.now();
  let result: CheckResult;
  try {
    result = await within(DEADLINE_MS, check.run(context));
  } catch (error) {
    result = skip(`not known: ${messageOf(error)}`);
  }
  const troubled = result.verdict === "warn" || result.verdict === "fail";
  return { code, category, title, ...result, fix: troubled ? fix : null, milliseconds: performance.now() - began };
}

async function within<T>(ms: number, answer: T | Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${ms / 1000} s`)), ms);
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}
