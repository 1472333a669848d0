// SPDX-License-Identifier: Apache-2.0
import { stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Config } from "../src/core/config/config.ts";
import { PLUGIN_NAME } from "../src/core/constants.ts";
import { AgentError, codeOf, messageOf } from "../src/core/errors.ts";
import { type ReadFile, readBounded, readRegular } from "../src/sys/files.ts";
import { nodeFault } from "./node-fault.ts";
import type { Step } from "./step.ts";

const MAX_BYTES = 32 << 20;
const MODE = 0o755;

/** The plugin on the node, against the one in the image. */
export class PluginBinary {
  readonly path: string;
  private readonly source: string;
  /** The image's; it doesn't change while we run. */
  private wanted: Buffer | undefined;

  constructor(config: Pick<Config, "cniBinDir" | "pluginSourceDir">) {
    this.path = join(config.cniBinDir, PLUGIN_NAME);
    this.source = join(config.pluginSourceDir, PLUGIN_NAME);
  }

  /** Undefined when there is none that a runtime could start. @throws AgentError when that can't be told */
  async onNode(): Promise<ReadFile | undefined> {
    try {
      return await readRegular(this.path, MAX_BYTES);
    } catch (error) {
      if (!["ENOENT", "ELOOP", "NOT_A_FILE", "FILE_TOO_LARGE"].includes(codeOf(error))) {
        throw nodeFault(error, this.path);
      }
    }
    // Not made by us: where a mount is missing, nothing of the node would be reached.
    await stat(dirname(this.path)).catch((error: unknown) => {
      throw nodeFault(error, this.path);
    });
    return undefined;
  }

  /**
   * What makes it the image's: compared by content and mode, because times and sizes lie.
   * @throws AgentError PLUGIN_SOURCE when the image has none
   */
  async step(onNode: ReadFile | undefined): Promise<Step | undefined> {
    this.wanted ??= await this.readSource();
    if (onNode?.mode === MODE && onNode.bytes.equals(this.wanted)) return undefined;
    // Whatever is there is replaced; a runtime that is starting it keeps the old one until it has ended.
    return { do: "write", path: this.path, was: "anything", bytes: this.wanted, mode: MODE };
  }

  private async readSource(): Promise<Buffer> {
    try {
      return await readBounded(this.source, MAX_BYTES);
    } catch (error) {
      throw new AgentError(
        "PLUGIN_SOURCE",
        `the plugin to install, ${this.source}: ${messageOf(error)}`,
        "rebuild the image",
        {
          cause: error,
        },
      );
    }
  }
}
