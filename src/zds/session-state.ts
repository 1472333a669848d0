// SPDX-License-Identifier: Apache-2.0

/**
 * greeting: no hello yet. held: greeted, but the snapshot may not be cut yet. snapshot: being sent.
 * ready: ztunnel has acked `snapshot_sent`.
 */
export type SessionState = "greeting" | "held" | "snapshot" | "ready" | "closed";
