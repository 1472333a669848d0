// SPDX-License-Identifier: Apache-2.0
import type { Logger } from "../../core/ports/telemetry.ts";

/** For parts that log beside their result, where the result says it all. */
export const SILENT: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => SILENT,
};
