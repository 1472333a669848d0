// SPDX-License-Identifier: Apache-2.0
import { createHash } from "node:crypto";

/** Short hash of a plan's text. */
export function textHash(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}
