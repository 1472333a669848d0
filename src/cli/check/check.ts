// SPDX-License-Identifier: Apache-2.0
// What `ambient-cni check` is made of. Every check tries or reads the thing itself, and has a code that stays.
import { messageOf } from "../../core/errors.ts";
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
  verify(uid: string): Promise<ProofsReport>;
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

/** The agent's settings; undefined without it on the node itself, where this process's settings are not the agent's. */
export async function agentSettings({ read, view }: CheckContext): Promise<SettingsReport["settings"] | undefined> {
  const { source, settings } = await read("config");
  return source.from === "kernel" && view.config.hostRoot === "/" ? undefined : settings;
}

/** Runs one. What it can't find out is no verdict about the node. */
export async function runCheck(check: Check, context: CheckContext): Promise<CheckReport> {
  const { code, category, title, fix } = check;
  const began = performance.now();
  let result: CheckResult;
  try {
    result = await check.run(context);
  } catch (error) {
    result = skip(`not known: ${messageOf(error)}`);
  }
  const troubled = result.verdict === "warn" || result.verdict === "fail";
  return { code, category, title, ...result, fix: troubled ? fix : null, milliseconds: performance.now() - began };
}
