// SPDX-License-Identifier: Apache-2.0
// Network namespaces that somebody has captured by hand, for an experiment.
import type { EngineName } from "./dataplane.ts";
import type { NetnsId } from "./netns.ts";

/** As whom a ztunnel speaks for such a netns. */
export interface ManualWorkload {
  readonly namespace: string;
  readonly name: string;
  readonly serviceAccount: string;
}

export interface ManualRequest {
  /** Path of the netns on the host. */
  readonly netns: string;
  /** Canonical, at most one of a family. */
  readonly ips: readonly string[];
  readonly engine: EngineName | null;
  /** null: no ztunnel is told of it. */
  readonly workload: ManualWorkload | null;
}

/** What was asked for, kept for the next agent. What is true of the netns is in the kernel. */
export interface ManualClaim extends ManualRequest {
  readonly uid: string;
  readonly netnsId: NetnsId;
  /**
   * capturing: written before anything is touched, so that whoever comes after a kill knows what to undo.
   * leaving: to be released, and not released yet.
   */
  readonly state: "capturing" | "captured" | "leaving";
}

export interface ManualClaims {
  /** Those of this boot; none when there is no file. @throws AgentError CLAIMS_INVALID; errors of the file system */
  read(): Promise<readonly ManualClaim[]>;
  /** Replaces them all; on disk when this resolves. */
  write(claims: readonly ManualClaim[]): Promise<void>;
}
