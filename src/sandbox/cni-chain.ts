// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from "node:fs";
import { access, constants } from "node:fs/promises";
import { join } from "node:path";
import { codeOf, messageOf } from "../core/errors.ts";
import { Child } from "../sys/child.ts";

/** One container's place in the network, as a runtime names it to plugins. */
export interface Attachment {
  readonly containerId: string;
  /** Path of the netns, as the host sees it. */
  readonly netns: string;
  readonly ifName: string;
  readonly pod: { readonly namespace: string; readonly name: string; readonly uid: string };
}

export interface CniChainOptions {
  /** Directories in which plugins are looked for, first match wins. */
  readonly binDirs: readonly string[];
  /** One plugin is killed after this many ms. */
  readonly timeoutMs?: number;
  /** Puts a plugin's command line behind another program's, e.g. nsenter into the node. */
  readonly wrap?: (argv: readonly string[]) => readonly string[];
}

/** What the last plugin printed. */
export interface CniResult {
  /** As printed, byte for byte. */
  readonly text: string;
  /** Addresses without prefix lengths. */
  readonly ips: readonly string[];
}

/** A plugin's error object, or what a plugin that broke the contract left. */
export class CniPluginError extends Error {
  override readonly name = "CniPluginError";
  constructor(
    readonly plugin: string,
    readonly command: string,
    /** CNI error code; 0 when the plugin printed no error object. */
    readonly code: number,
    readonly msg: string,
    readonly details: string,
  ) {
    super(`${plugin} ${command}: ${msg} (code ${code})${details === "" ? "" : `: ${details}`}`);
  }
}

interface ConfigList {
  readonly cniVersion: string;
  readonly name: string;
  readonly plugins: readonly (Record<string, unknown> & { readonly type: string })[];
}

const TIMEOUT_MS = 60_000;

/**
 * Runs the plugins of a `.conflist` as libcni does in containerd and CRI-O: in order for ADD, each
 * given the previous one's result; in reverse order for DEL; with the last result for CHECK and DEL.
 */
export class CniChain {
  private readonly results = new Map<string, string>();

  constructor(
    /** Read anew for every command, as runtimes follow changes of the file. */
    private readonly confPath: string,
    private readonly options: CniChainOptions,
  ) {}

  /** @throws CniPluginError of the first plugin that fails; a runtime then calls `del` */
  async add(attachment: Attachment): Promise<CniResult> {
    const list = readConfigList(this.confPath);
    let result: string | undefined;
    for (const plugin of list.plugins) {
      result = await this.run("ADD", list, plugin, attachment, result);
    }
    const text = result ?? "";
    this.results.set(keyOf(attachment), text);
    return { text, ips: ipsOf(text) };
  }

  /** @throws CniPluginError after all plugins have been called */
  async del(attachment: Attachment): Promise<void> {
    const list = readConfigList(this.confPath);
    const result = this.results.get(keyOf(attachment));
    const errors: unknown[] = [];
    for (const plugin of [...list.plugins].reverse()) {
      await this.run("DEL", list, plugin, attachment, result).catch((error: unknown) => errors.push(error));
    }
    this.results.delete(keyOf(attachment));
    if (errors.length > 0) throw errors[0];
  }

  /** @throws CniPluginError of the first plugin that finds something wrong */
  async check(attachment: Attachment): Promise<void> {
    const list = readConfigList(this.confPath);
    const result = this.results.get(keyOf(attachment));
    for (const plugin of list.plugins) await this.run("CHECK", list, plugin, attachment, result);
  }

  private async run(
    command: string,
    list: ConfigList,
    plugin: ConfigList["plugins"][number],
    attachment: Attachment,
    previous: string | undefined,
  ): Promise<string> {
    const { capabilities: _capabilities, ...own } = plugin;
    const conf = JSON.stringify({ ...own, cniVersion: list.cniVersion, name: list.name });
    // libcni passes the result on as it got it; so a plugin's bytes reach the next one unchanged.
    const withPrevious = previous === undefined ? conf : `${conf.slice(0, -1)},"prevResult":${previous}}`;
    const { namespace, name, uid } = attachment.pod;
    const argv = [await this.find(plugin.type)];
    const commandLine = this.options.wrap?.(argv) ?? argv;
    const output = await runPlugin(commandLine, withPrevious, this.options.timeoutMs ?? TIMEOUT_MS, {
      PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      CNI_COMMAND: command,
      CNI_CONTAINERID: attachment.containerId,
      CNI_NETNS: attachment.netns,
      CNI_IFNAME: attachment.ifName,
      CNI_PATH: this.options.binDirs.join(":"),
      // As containerd 1.6 and CRI-O 1.2x write it.
      CNI_ARGS: [
        "IgnoreUnknown=1",
        `K8S_POD_NAMESPACE=${namespace}`,
        `K8S_POD_NAME=${name}`,
        `K8S_POD_INFRA_CONTAINER_ID=${attachment.containerId}`,
        `K8S_POD_UID=${uid}`,
      ].join(";"),
    });
    if (output.code === 0) return output.stdout;
    throw pluginError(plugin.type, command, output);
  }

  private async find(type: string): Promise<string> {
    for (const directory of this.options.binDirs) {
      const path = join(directory, type);
      try {
        await access(path, constants.X_OK);
        return path;
      } catch (error) {
        if (codeOf(error) !== "ENOENT") throw error;
      }
    }
    throw new Error(`no CNI plugin ${type} in ${this.options.binDirs.join(", ")}`);
  }
}

function keyOf(attachment: Attachment): string {
  return `${attachment.containerId} ${attachment.ifName}`;
}

function readConfigList(path: string): ConfigList {
  const list = JSON.parse(readFileSync(path, "utf8")) as ConfigList;
  if (!Array.isArray(list.plugins) || list.plugins.length === 0) throw new Error(`${path} lists no plugins`);
  return list;
}

function ipsOf(result: string): string[] {
  const { ips } = JSON.parse(result) as { ips?: { address: string }[] };
  return (ips ?? []).map(({ address }) => address.split("/", 1)[0] ?? "");
}

interface PluginOutput {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function runPlugin(
  argv: readonly string[],
  stdin: string,
  timeoutMs: number,
  env: Record<string, string>,
): Promise<PluginOutput> {
  const child = new Child(argv, { env, cwd: "/", stdio: ["pipe", "pipe", "pipe"] });
  const { stdin: input, stdout, stderr } = child.process;
  const collected = { stdout: "", stderr: "" };
  stdout?.setEncoding("utf8").on("data", (chunk: string) => {
    collected.stdout += chunk;
  });
  stderr?.setEncoding("utf8").on("data", (chunk: string) => {
    collected.stderr += chunk;
  });
  // EPIPE: a plugin that doesn't need its configuration (DEL) may leave it.
  input?.on("error", () => undefined);
  input?.end(stdin);
  const closed = new Promise<void>((resolve) => child.process.once("close", () => resolve()));
  const timer = setTimeout(() => child.signal("SIGKILL"), timeoutMs);
  try {
    const { code } = await child.exited;
    await closed;
    return { code, ...collected };
  } finally {
    clearTimeout(timer);
  }
}

function pluginError(plugin: string, command: string, output: PluginOutput): CniPluginError {
  try {
    const { code, msg, details } = JSON.parse(output.stdout) as { code: number; msg: string; details?: string };
    return new CniPluginError(plugin, command, code, msg, details ?? "");
  } catch (error) {
    const what = output.code === null ? "was killed" : `ended with status ${output.code}`;
    return new CniPluginError(
      plugin,
      command,
      0,
      `${what} without an error object: ${messageOf(error)}`,
      output.stderr,
    );
  }
}
