// SPDX-License-Identifier: Apache-2.0

/** A failure that a user reads: what went wrong, and what to do about it. */
export class AgentError extends Error {
  override readonly name: string = "AgentError";
  /** `code` is stable and upper case, e.g. `NETNS_NOT_FOUND`; it labels metrics and events. */
  constructor(
    readonly code: string,
    message: string,
    readonly remedy: string | undefined = undefined,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** Text of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Stable code of anything that was thrown: our code, Node's errno name, or `UNKNOWN`. */
export function codeOf(error: unknown): string {
  if (typeof error === "object" && error !== null && "code" in error && typeof error.code === "string") {
    return error.code;
  }
  return "UNKNOWN";
}
