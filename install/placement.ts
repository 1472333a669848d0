// SPDX-License-Identifier: Apache-2.0
import type { Config } from "../src/core/config/config.ts";
import type { ConfDir } from "./conf-dir.ts";
import type { Step } from "./step.ts";

export type PlacementConfig = Pick<
  Config,
  "chained" | "cniConfGroupRead" | "cniConfName" | "cniNetDir" | "istioOwnedConfig" | "istioOwnedConfigName"
>;

/** How our entry gets into the configuration that the runtime uses: pure, from one look at the directory. */
export interface Placement {
  /** The file that holds our entry, or will. */
  readonly path: string;
  readonly steps: readonly Step[];
  /** What a person should know although nothing is wrong with the steps. */
  readonly warnings: readonly string[];
}

/** Mode of files that we create; those that exist keep theirs. */
export const newMode = (config: Pick<Config, "cniConfGroupRead">): number => (config.cniConfGroupRead ? 0o640 : 0o600);

export const encode = (text: string): Buffer => Buffer.from(text, "latin1");

/** What a file of ours that is no valid configuration may be: broken ones (empty after a power cut) are replaced. */
export const absent = (dir: ConfDir, name: string): "anything" | undefined =>
  dir.names.has(name) ? "anything" : undefined;
