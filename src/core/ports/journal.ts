// SPDX-License-Identifier: Apache-2.0
// What was decided about each pod, for the log and for people.
import type { EngineName } from "./dataplane.ts";

export type DecisionKind =
  /** The runtime's ADD was answered; `reason` says how. */
  | "cni add"
  /** Found captured at the start of the agent. */
  | "adopted"
  | "captured"
  /** Into its sidecar; `detail`: the mode, or that somebody else's redirection was found. */
  | "redirected"
  /** What another program had changed in its netns is as it should be again. */
  | "repaired"
  | "pass failed"
  /** Its sandbox was replaced. */
  | "netns replaced"
  | "annotated"
  | "ztunnel acked"
  | "ztunnel refused"
  | "draining"
  | "released"
  /** Taken down; the API will say so. */
  | "sandbox gone"
  /** Something of ours was found in a pod that does not belong to the mesh. */
  | "found captured"
  /** Gone, or ended. */
  | "forgotten"
  | "older connections";

export interface Decision {
  readonly what: DecisionKind;
  readonly engine?: EngineName | undefined;
  readonly milliseconds?: number;
  /** ms of each step. */
  readonly phases?: Readonly<Record<string, number>>;
  /** Stable word or code. */
  readonly reason?: string;
  readonly detail?: string;
  /** ms until it is tried again. */
  readonly nextTryMs?: number;
}

export interface DecisionRecord {
  readonly decision: Decision;
  /** Wall clock, ms, of the last of `times` equal ones in a row. */
  readonly at: number;
  readonly times: number;
}

export interface Journal {
  /** `quiet`: for the log this is no news. */
  note(pod: { readonly uid: string; readonly name: string }, decision: Decision, quiet?: boolean): void;
  /** Oldest first; none for a pod of which nothing is known. */
  of(uid: string): readonly DecisionRecord[];
  /** Pods that have some, the one with the newest decision last. */
  pods(): readonly { readonly uid: string; readonly name: string }[];
}
