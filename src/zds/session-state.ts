// SPDX-License-Identifier: Apache-2.0

/**
 * greeting: no hello yet. held: greeted, but the snapshot may not be cut yet. snapshot: being sent.
 * ready: ztunnel has acked `snapshot_sent`.
 */
export type SessionState = "greeting" | "held" | "snapshot" | "ready" | "closed";

export type CloseReason =
  | "eof"
  | "read_error"
  | "send_error"
  | "hello_timeout"
  | "hello_garbage"
  | "hello_version"
  | "ack_timeout"
  | "unsolicited"
  | "garbage"
  | "truncated"
  | "fds"
  | "snapshot_refused"
  | "snapshot_failed"
  | "stopped";
