// SPDX-License-Identifier: Apache-2.0
import * as v from "valibot";
import { HEAD, list } from "./document.ts";

export const settingSchema = v.object({
  /** Its first variable, or its flag. */
  setting: v.string(),
  /** As text, secrets redacted. */
  value: v.string(),
  /** `flag --log_as_json`, `env NODE_NAME`, `default`. */
  origin: v.string(),
  status: v.string(),
});

export const settingsSchema = v.object({ ...HEAD, settings: list(settingSchema) });

export type SettingReport = v.InferOutput<typeof settingSchema>;
export type SettingsReport = v.InferOutput<typeof settingsSchema>;
