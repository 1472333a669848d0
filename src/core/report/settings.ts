// SPDX-License-Identifier: Apache-2.0
import * as v from "valibot";
import { about, HEAD, list } from "./document.ts";

export const settingSchema = v.object({
  setting: about("Its first variable, or its flag.", v.string()),
  value: about("As text, secrets redacted.", v.string()),
  origin: about("flag or env with its name, or default.", v.string()),
  status: about("honoured, accepted (without effect), refused or later (of a later version).", v.string()),
});

export const settingsSchema = v.object({
  ...HEAD,
  settings: about("In the order of [docs/config.md](config.md).", list(settingSchema)),
  onNode: about(
    "Where on the node the directories lie that the agent's container has mounted; null: not found. Only the agent says.",
    v.optional(
      v.object({
        cniNetDir: about("Of MOUNTED_CNI_NET_DIR.", v.nullable(v.string())),
        cniBinDir: about("Of AMBIENT_CNI_BIN_DIR.", v.nullable(v.string())),
        runDir: about("Of CNI_AGENT_RUN_DIR.", v.nullable(v.string())),
      }),
    ),
  ),
});

export type SettingReport = v.InferOutput<typeof settingSchema>;
export type SettingsReport = v.InferOutput<typeof settingsSchema>;
