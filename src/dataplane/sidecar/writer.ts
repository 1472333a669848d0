// SPDX-License-Identifier: Apache-2.0
import type { EngineName } from "../../core/ports/dataplane.ts";
import type { NetnsHandle } from "../../core/ports/netns.ts";
import type { Redirection } from "../../core/redirection.ts";

/** What a writer says of rules that are another redirection's. */
export const OTHER_SETTINGS = "made for other settings of the pod, or by another version";
export const OTHER_VERSION = "is not of this version";

/** One way to write the rules of a redirection. Addresses and policy routing are common (routing.ts). */
export interface RedirectionWriter {
  readonly engine: EngineName;
  /** For messages: the engine, or its variant. */
  readonly name: string;
  /**
   * Sentences about what differs from the redirection, none when it is there as it should be; undefined
   * when nothing of ours is in the netns. No fork.
   */
  differences(netns: NetnsHandle, redirection: Redirection): readonly string[] | undefined;
  /** Puts the rules in the place of whatever is there of ours. @throws AgentError with the program's message. */
  write(netns: NetnsHandle, redirection: Redirection): Promise<void>;
  /** Idempotent. */
  remove(netns: NetnsHandle): Promise<void>;
  /** Gives back what the process holds; pods stay as they are. */
  close(): void;
}
