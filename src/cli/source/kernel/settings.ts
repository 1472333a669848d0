// SPDX-License-Identifier: Apache-2.0
import { effectiveSettings } from "../../../core/config/effective.ts";
import type { SettingsReport } from "../../../core/report/settings.ts";
import type { NodeView } from "./node-view.ts";

/** What an agent would be set to that was started with this process's environment. */
export async function kernelSettings(view: NodeView): Promise<SettingsReport> {
  const settings = effectiveSettings(view.environment, []).map((row) =>
    view.foundOut.includes(row.setting) ? { ...row, origin: "default" } : row,
  );
  return { ...view.head(), settings };
}
