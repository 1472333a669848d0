// SPDX-License-Identifier: Apache-2.0
import type { CaptureMode } from "../../core/ports/dataplane.ts";

/** draining: nothing new is captured. retiring: nor is anything refused, because another engine steers. */
export type PlanMode = "captured" | "draining" | "retiring";

export function isPlanMode(mode: string | undefined): mode is PlanMode {
  return mode === "captured" || mode === "draining" || mode === "retiring";
}

/**
 * How ztunnel's legs to the application are told: in our own way, or in upstream's while some are open that
 * its rules have seen begin.
 */
export type Legs = "own" | "upstream";

/** What whoever asks is told of rules that are as planned. */
export function observedMode(mode: PlanMode): Extract<CaptureMode, "captured" | "draining"> {
  return mode === "captured" ? "captured" : "draining";
}
