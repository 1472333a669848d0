// SPDX-License-Identifier: Apache-2.0
import { mkdir, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Config } from "../src/core/config/config.ts";
import { PLUGIN_NAME } from "../src/core/constants.ts";
import { AgentError, codeOf, messageOf } from "../src/core/errors.ts";
import type { Logger, Metrics } from "../src/core/ports.ts";
import { atomicWrite, readBounded } from "../src/sys/files.ts";
import { findPrimaryConf, readConfs } from "./cni-conf.ts";
import { merge, type PluginEntry, unmerge } from "./conflist.ts";

const PLUGIN_MAX_BYTES = 32 << 20;
const PLUGIN_MODE = 0o755;

export interface InstallOutcome {
  /** The configuration list that holds our entry. */
  readonly confPath: string;
  readonly confChanged: boolean;
  readonly binaryChanged: boolean;
}

/** Puts the plugin on the node and into its chain, and takes both away again. */
export class Installer {
  private readonly logger: Logger;

  constructor(
    private readonly config: Pick<Config, "cniBinDir" | "cniConfName" | "cniNetDir" | "pluginSourceDir">,
    private readonly entry: PluginEntry,
    logger: Logger,
    private readonly metrics: Metrics,
  ) {
    this.logger = logger.child("cni-install");
  }

  /**
   * Copies the plugin if it differs and chains it. The configuration is checked before anything is
   * written and written last, so that no runtime calls a plugin that isn't there. Idempotent.
   * @throws AgentError naming the file; errors of the file system
   */
  async install(): Promise<InstallOutcome> {
    let result = "CREATE_CNI_CONFIG_FAILURE";
    try {
      const { cniNetDir, cniConfName } = this.config;
      const conf = await findPrimaryConf(cniNetDir, cniConfName, (path, reason) => {
        this.logger.warn("CNI configuration passed over", { path, reason });
      });
      const text = merge(conf.text, this.entry);
      result = "COPY_BINARIES_FAILURE";
      const binaryChanged = await this.copyPlugin();
      result = "CREATE_CNI_CONFIG_FAILURE";
      const confChanged = text !== conf.text;
      if (confChanged) await writeOnNode(conf.path, text, conf.mode);
      result = "SUCCESS";
      this.logger.info("CNI plugin installed", { conf: conf.path, confChanged, binaryChanged });
      return { confPath: conf.path, confChanged, binaryChanged };
    } finally {
      this.metrics.count("istio_cni_installs_total", { result });
    }
  }

  /**
   * Takes our entry out of every list that has it, which gives back the bytes from before `install`.
   * The plugin stays: runtimes remember the chain of a running pod, and its DEL must find it.
   * @throws errors of the file system
   */
  async restore(): Promise<void> {
    for (const conf of await readConfs(this.config.cniNetDir)) {
      if (!conf.types.includes(PLUGIN_NAME)) continue;
      const text = unmerge(conf.text);
      if (text === undefined) {
        // Whoever wrote a list of our plugin alone has to say what comes in its place.
        this.logger.warn("left alone: our plugin is its only one", { conf: conf.path });
        continue;
      }
      await writeOnNode(conf.path, text, conf.mode);
      this.logger.info("CNI plugin taken out of the chain", { conf: conf.path });
    }
  }

  /** Whether the node's plugin had to be replaced. */
  private async copyPlugin(): Promise<boolean> {
    const source = join(this.config.pluginSourceDir, PLUGIN_NAME);
    const target = join(this.config.cniBinDir, PLUGIN_NAME);
    const wanted = await readBounded(source, PLUGIN_MAX_BYTES).catch((error: unknown) => {
      throw new AgentError("PLUGIN_SOURCE", `the plugin to install: ${messageOf(error)}`, "rebuild the image", {
        cause: error,
      });
    });
    if (await isInstalled(target, wanted)) return false;
    await mkdir(this.config.cniBinDir, { recursive: true });
    await writeOnNode(target, wanted, PLUGIN_MODE);
    return true;
  }
}

async function isInstalled(target: string, wanted: Buffer): Promise<boolean> {
  try {
    const { size, mode } = await stat(target);
    if (size !== wanted.length || (mode & 0o7777) !== PLUGIN_MODE) return false;
    return wanted.equals(await readBounded(target, PLUGIN_MAX_BYTES));
  } catch (error) {
    if (codeOf(error) === "ENOENT") return false;
    throw error;
  }
}

async function writeOnNode(path: string, data: string | Buffer, mode: number): Promise<void> {
  try {
    await atomicWrite(path, data, mode);
  } catch (error) {
    if (codeOf(error) !== "EROFS") throw error;
    throw new AgentError(
      "READ_ONLY",
      `${path}: ${messageOf(error)}`,
      "the distribution keeps its CNI files elsewhere: set global.platform, or cniBinDir and cniConfDir",
      { cause: error },
    );
  }
}
