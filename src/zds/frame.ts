// SPDX-License-Identifier: Apache-2.0
import { AgentError } from "../core/errors.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { Workload } from "../core/ports/ztunnel.ts";
import { encodeAdd, encodeDel, encodeKeep, encodeSnapshotSent } from "./codec.ts";

export type MessageType = "add" | "keep" | "del" | "snapshot_sent";

/** A workload and the netns its proxy belongs in. */
export interface Target {
  readonly workload: Workload;
  readonly netns: NetnsHandle;
}

export type Outcome =
  | { readonly result: "acked" }
  /** ztunnel answered with an error. */
  | { readonly result: "refused"; readonly reason: string }
  /** It could not be built, nothing was sent. */
  | { readonly result: "unsent"; readonly error: AgentError }
  /** The connection ended before the answer. */
  | { readonly result: "lost"; readonly timeout: boolean };

export interface Datagram {
  readonly message: Buffer;
  readonly fd: number | undefined;
}

/** One message on its way: built when its turn comes, `done` exactly once. */
export interface Frame {
  readonly type: MessageType;
  readonly uid: string;
  /** @throws AgentError */
  build(): Datagram;
  done(outcome: Outcome): void;
}

type Done = (outcome: Outcome) => void;

/** The open fd of a handle. @throws AgentError NETNS_CLOSED when its owner has closed it. */
export function openFd(target: Target): number {
  try {
    return target.netns.fd;
  } catch (error) {
    const { namespace, name } = target.workload;
    throw new AgentError(
      "NETNS_CLOSED",
      `the netns of ${namespace}/${name} was closed before ztunnel got it`,
      undefined,
      {
        cause: error,
      },
    );
  }
}

/** The fd is read in the same turn in which it is sent: a number that was closed and reused is never sent. */
export function addFrame(target: Target, done: Done): Frame {
  return {
    type: "add",
    uid: target.workload.uid,
    build: () => ({ message: encodeAdd(target.workload), fd: openFd(target) }),
    done,
  };
}

export function keepFrame(uid: string, done: Done): Frame {
  return { type: "keep", uid, build: () => ({ message: encodeKeep(uid), fd: undefined }), done };
}

export function delFrame(uid: string, done: Done): Frame {
  return { type: "del", uid, build: () => ({ message: encodeDel(uid), fd: undefined }), done };
}

export function snapshotSentFrame(done: Done): Frame {
  return { type: "snapshot_sent", uid: "", build: () => ({ message: encodeSnapshotSent(), fd: undefined }), done };
}
