// SPDX-License-Identifier: Apache-2.0
import { AgentError, messageOf } from "../core/errors.ts";
import { UNREACHED_NETNS } from "../core/ports/cni.ts";

/** What the plugin prints for a failed request (CNI spec, "Error"), and the HTTP status it travels with. */
export interface CniError {
  readonly status: number;
  readonly code: number;
  readonly msg: string;
  readonly details: string | undefined;
  /** The agent can't judge yet: the plugin applies its rules for an absent agent. */
  readonly away: boolean;
  /** The path of the pod's netns leads nowhere in the agent's container: the plugin may hand the netns over. */
  readonly handOver: boolean;
}

/** Spec codes. */
const TRY_AGAIN = 11;
const DECODE_FAILURE = 6;
/** Ours; cni/README.md lists them. */
const AGENT_FAILED = 100;

/** Errors that another try, without anybody's doing, may not see again. */
const TRANSIENT = new Set([
  "AGENT_STARTING",
  "AGENT_BUSY",
  "AGENT_STOPPING",
  "AGENT_TIMEOUT",
  "POD_NOT_FOUND",
  "NAMESPACE_NOT_FOUND",
  "REQUEST_ABORTED",
  "NO_ZTUNNEL",
  "ZTUNNEL_REFUSED",
  "ZTUNNEL_TIMEOUT",
]);

const OWN_CODES: ReadonlyMap<string, number> = new Map([
  ["NO_POD_IP", 103],
  ["NOT_CAPTURED", 105],
  ["NO_ENGINE", 106],
  ["ANNOTATION_INVALID", 107],
]);

/** Codes of a part share its first word. */
const PART_CODES: ReadonlyMap<string, number> = new Map([
  ["KUBE", TRY_AGAIN],
  ["NETNS", 104],
  ["NFT", 106],
]);

const BODY_STATUS: ReadonlyMap<string, number> = new Map([
  ["BAD_REQUEST", 400],
  ["BODY_ENCODING", 400],
  ["BODY_INCOMPLETE", 400],
  ["BODY_TOO_LARGE", 413],
]);

/** Turns anything that a handler threw into what the plugin prints. */
export function cniError(error: unknown): CniError {
  if (!(error instanceof AgentError)) {
    return {
      status: 500,
      code: AGENT_FAILED,
      msg: `the agent failed: ${messageOf(error)}`,
      details: "this is a defect of the agent: its log has the stack",
      away: false,
      handOver: false,
    };
  }
  // The stable word in the text is what people search for.
  const base = {
    msg: `${error.message} (${error.code})`,
    details: error.remedy,
    away: false,
    handOver: UNREACHED_NETNS.has(error.code),
  };
  const bodyStatus = BODY_STATUS.get(error.code);
  if (bodyStatus !== undefined) return { ...base, status: bodyStatus, code: DECODE_FAILURE };
  const code = TRANSIENT.has(error.code)
    ? TRY_AGAIN
    : (OWN_CODES.get(error.code) ?? PART_CODES.get(error.code.split("_", 1)[0] ?? "") ?? AGENT_FAILED);
  return { ...base, status: code === TRY_AGAIN ? 503 : 500, code, away: error.code === "AGENT_STARTING" };
}
