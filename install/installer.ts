// SPDX-License-Identifier: Apache-2.0
import { lstat } from "node:fs/promises";
import { join } from "node:path";
import type { Config } from "../src/core/config/config.ts";
import { RUN_FILE } from "../src/core/constants.ts";
import { type AgentError, messageOf } from "../src/core/errors.ts";
import type { Logger, Metrics } from "../src/core/ports/telemetry.ts";
import { chained } from "./chained.ts";
import { byBytes, type ConfDir, type ConfFile, readConfDir, SET_ASIDE } from "./conf-dir.ts";
import type { PluginEntry } from "./netconf.ts";
import { owned } from "./owned.ts";
import type { Placement, PlacementConfig } from "./placement.ts";
import { PluginBinary } from "./plugin-binary.ts";
import { hasOurs, inUse } from "./primary.ts";
import { removeTemporaries, restore } from "./restore.ts";
import { standalone, standaloneName } from "./standalone.ts";
import { type Step, take } from "./step.ts";

export type InstallerConfig = PlacementConfig & Pick<Config, "cniBinDir" | "pluginSourceDir" | "runDir">;

export type InstallStep = Step & { readonly what: "plugin" | "kubeconfig" | "configuration" };

/** Values of `result` in istio_cni_installs_total, upstream's. */
type InstallResult = "SUCCESS" | "COPY_BINARIES_FAILURE" | "CREATE_CNI_CONFIG_FAILURE";

/** The node as it is, against what it should be. */
export interface Look {
  /** What to do, in this order. */
  readonly steps: readonly InstallStep[];
  /** Why runtimes don't call the plugin, in a sentence; undefined when they do. */
  readonly missing: string | undefined;
  /** Why not everything could be planned. */
  readonly problem: { readonly error: AgentError | Error; readonly result: InstallResult } | undefined;
  /** What a person should know although nothing is wrong. */
  readonly warnings: readonly string[];
  /** Cilium manages the directory, and may be set to keep others out. */
  readonly cilium: boolean;
  /** The configuration that holds our entry, or will. */
  readonly confPath: string | undefined;
}

/** Puts the plugin on the node and into its chain, and gives the node its own configuration back. */
export class Installer {
  private readonly logger: Logger;
  private readonly binary: PluginBinary;

  constructor(
    private readonly config: InstallerConfig,
    private readonly entry: PluginEntry,
    logger: Logger,
    private readonly metrics: Metrics,
  ) {
    this.logger = logger.child("cni-install");
    this.binary = new PluginBinary(config);
  }

  /** Where changes may concern the installation. */
  get directories(): readonly string[] {
    return [this.config.cniNetDir, this.config.cniBinDir];
  }

  /** Looks at the node and changes nothing. Never throws: what goes wrong is part of what it sees. */
  async look(): Promise<Look> {
    const dir = await outcome(() => readConfDir(this.config.cniNetDir));
    const used = dir.value === undefined ? undefined : this.used(dir.value);
    const named = used !== undefined && hasOurs(used.conf);
    const placement = await outcome(() => (dir.value === undefined ? undefined : this.place(dir.value)));
    const onNode = await outcome(() => this.binary.onNode());
    // While nothing can be chained and nothing is, no plugin is left on the node either.
    const wanted = named || placement.value !== undefined;
    const plugin = await outcome(() => (wanted && !onNode.error ? this.binary.step(onNode.value) : undefined));

    const steps: InstallStep[] = [];
    // In this order: no runtime may find a name in its chain without a program for it.
    if (plugin.value !== undefined) steps.push({ ...plugin.value, what: "plugin" });
    const pluginError = onNode.error ?? plugin.error;
    if (placement.value !== undefined && pluginError === undefined) {
      steps.push(...(await this.leftKubeconfig()));
      for (const step of placement.value.steps) steps.push({ ...step, what: "configuration" });
    }
    const confError = dir.error ?? placement.error;
    return {
      steps,
      missing: unseen(dir.value, used, this.config) ?? this.missing(confError, used, named, onNode.value !== undefined),
      problem: problemOf(confError, "CREATE_CNI_CONFIG_FAILURE") ?? problemOf(pluginError, "COPY_BINARIES_FAILURE"),
      warnings: placement.value?.warnings ?? [],
      cilium: dir.value !== undefined && isCilium(dir.value),
      confPath: placement.value?.path,
    };
  }

  /** Takes the steps of a look. @throws AgentError of the first that fails; the later ones are not taken */
  async carryOut(look: Look): Promise<void> {
    if (look.steps.length === 0) return;
    let result: InstallResult = "SUCCESS";
    try {
      for (const step of look.steps) {
        result = step.what === "plugin" ? "COPY_BINARIES_FAILURE" : "CREATE_CNI_CONFIG_FAILURE";
        await this.take(step);
      }
      result = "SUCCESS";
    } finally {
      this.metrics.count("istio_cni_installs_total", { result });
    }
  }

  /** Removes what runs that were killed left behind. Returns whether none of that is left. Never throws. */
  async tidy(): Promise<boolean> {
    return await removeTemporaries(this.config);
  }

  /** One look and its steps, and nothing left over. @throws AgentError when the plugin could not be installed */
  async install(): Promise<Look> {
    const look = await this.look();
    await this.carryOut(look);
    await this.tidy();
    if (look.problem !== undefined) throw look.problem.error;
    return look;
  }

  /** @throws as restore() of restore.ts */
  async restore(): Promise<void> {
    await restore(this.config, this.logger);
  }

  private place(dir: ConfDir): Placement {
    if (!this.config.chained) return standalone(dir, this.config, this.entry);
    return (this.config.istioOwnedConfig ? owned : chained)(dir, this.config, this.entry);
  }

  /** The configuration by which our plugin is called. */
  private used(dir: ConfDir): ConfFile | undefined {
    const { chained: isChained, istioOwnedConfig, cniConfName } = this.config;
    if (!isChained) return dir.files.find(({ name }) => name === standaloneName(this.config));
    // With a copy, CNI_CONF_NAME says only what is copied.
    return inUse(dir, istioOwnedConfig ? "" : cniConfName);
  }

  private missing(
    error: Error | undefined,
    used: ConfFile | undefined,
    named: boolean,
    hasBinary: boolean,
  ): string | undefined {
    if (used === undefined) return error?.message ?? `no CNI configuration in ${this.config.cniNetDir}`;
    if (!named) return `${used.path} does not name it`;
    return hasBinary ? undefined : `${this.binary.path} does not exist`;
  }

  private async leftKubeconfig(): Promise<InstallStep[]> {
    const path = join(this.config.runDir, RUN_FILE.kubeconfig);
    const there = await lstat(path).catch(() => undefined);
    // What is no file is not upstream's.
    if (there === undefined || there.isDirectory()) return [];
    return [{ do: "remove", path, was: "anything", what: "kubeconfig" }];
  }

  private async take(step: InstallStep): Promise<void> {
    try {
      await take(step);
      this.logger.info(DONE[step.what][step.do], { path: step.path });
    } catch (error) {
      if (step.what !== "kubeconfig") throw error;
      this.logger.warn("upstream's kubeconfig is left", { path: step.path, error: messageOf(error) });
    }
  }
}

const DONE = {
  plugin: { write: "CNI plugin copied", rename: "", remove: "" },
  kubeconfig: { write: "", rename: "", remove: "upstream's kubeconfig removed: our plugin holds no credentials" },
  configuration: {
    write: "CNI configuration written with our plugin",
    rename: "CNI configuration of one plugin set aside: a list took its place",
    remove: "obsolete CNI configuration of ours removed",
  },
} as const;

/** A file that runtimes may read and we can't, or not where it is: then it is not known which they use. */
function unseen(dir: ConfDir | undefined, used: ConfFile | undefined, config: InstallerConfig): string | undefined {
  if (!config.chained || (config.cniConfName !== "" && !config.istioOwnedConfig)) return undefined;
  const file = dir?.passedOver.find(
    (each) => (each.unseen || each.unread) && (used === undefined || byBytes(each.name, used.name) < 0),
  );
  if (file?.unread !== undefined) return file.unread.message;
  return file === undefined
    ? undefined
    : `${dir?.path}/${file.name} is ${file.reason}: mount that too, or remove the link`;
}

function problemOf(error: Error | undefined, result: InstallResult): Look["problem"] {
  return error === undefined ? undefined : { error, result };
}

function isCilium(dir: ConfDir): boolean {
  return (
    [...dir.names].some((name) => name.endsWith(SET_ASIDE)) ||
    dir.files.some(({ conf }) => conf.types.includes("cilium-cni"))
  );
}

interface Outcome<T> {
  readonly value?: T;
  readonly error?: Error;
}

async function outcome<T>(work: () => T | Promise<T>): Promise<Outcome<T>> {
  try {
    return { value: await work() };
  } catch (error) {
    return { error: error instanceof Error ? error : new Error(messageOf(error)) };
  }
}
