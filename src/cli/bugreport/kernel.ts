// SPDX-License-Identifier: Apache-2.0
import { AgentError } from "../../core/errors.ts";
import { findResidents } from "../../netns/residents.ts";
import { ExecError, run } from "../../sys/exec.ts";
import type { Collection } from "./collection.ts";
import { isPlainName } from "./layout.ts";

/** Of one program, in ms and bytes. */
const TIMEOUT_MS = 1000;
const MAX_BYTES = 1 << 20;
/** Pods that are looked at at the same time. */
const LANES = 4;
/** Interfaces whose filters are shown. */
const MAX_DEVICES = 4;

type Command = readonly string[];

const FILES: readonly (readonly [file: string, commands: readonly Command[]])[] = [
  ["nft.txt", [["nft", "list", "ruleset"]]],
  [
    "rules.txt",
    [
      ["ip", "-4", "rule"],
      ["ip", "-6", "rule"],
    ],
  ],
  [
    "routes.txt",
    [
      ["ip", "-4", "route", "show", "table", "all"],
      ["ip", "-6", "route", "show", "table", "all"],
    ],
  ],
];

/** What the kernel's own tools say in the network namespaces of these pods, as far as the tools are installed. */
export async function collectKernel(collection: Collection, procDir: string, uids: readonly string[]): Promise<void> {
  await collection.attempt("kernel/", async () => {
    const tools = new Tools();
    const residents = await findResidents(procDir);
    try {
      const byUid = new Map(residents.map(({ podUid, containerId, netns }) => [podUid ?? containerId, netns.fd]));
      const waiting = [...uids];
      const lane = async () => {
        for (let uid = waiting.shift(); uid !== undefined; uid = waiting.shift()) {
          const netns = byUid.get(uid);
          if (netns !== undefined && isPlainName(uid)) await collectPod(collection, tools, uid, netns);
          else collection.fail(`kernel/${uid}/`, "no process of it is to be seen");
        }
      };
      await Promise.all(Array.from({ length: LANES }, lane));
    } finally {
      for (const { netns } of residents) netns.close();
    }
    for (const name of tools.missing) collection.fail("kernel/", `${name} is not installed here`);
  });
}

async function collectPod(collection: Collection, tools: Tools, uid: string, netns: number): Promise<void> {
  for (const [file, commands] of FILES) {
    await collection.text(`kernel/${uid}/${file}`, () => tools.transcript(commands, netns));
  }
  await collection.text(`kernel/${uid}/tc.txt`, async () => {
    const qdiscs = await tools.output(["tc", "qdisc", "show"], netns);
    if (qdiscs === undefined) return undefined;
    const devices = [...qdiscs.matchAll(/^qdisc clsact \S+ dev (\S+)/gm)].map(([, device = ""]) => device);
    const filters = devices
      .slice(0, MAX_DEVICES)
      .flatMap((device) => ["ingress", "egress"].map((side): Command => ["tc", "filter", "show", "dev", device, side]));
    return `$ tc qdisc show\n${qdiscs}${(await tools.transcript(filters, netns)) ?? ""}`;
  });
}

/** Programs of the node or the image; one that is missing is asked once. */
class Tools {
  readonly missing = new Set<string>();

  /** What they wrote, each below its command line; undefined when the program is missing. */
  async transcript(commands: readonly Command[], netns: number): Promise<string | undefined> {
    const parts: string[] = [];
    for (const command of commands) {
      const stdout = await this.output(command, netns);
      if (stdout !== undefined) parts.push(`$ ${command.join(" ")}\n${stdout}`);
    }
    return parts.length === 0 ? undefined : parts.join("");
  }

  /** @throws ExecError */
  async output(command: Command, netns: number): Promise<string | undefined> {
    const [name = ""] = command;
    if (this.missing.has(name)) return undefined;
    try {
      return (await run(command, { netns, timeoutMs: TIMEOUT_MS, maxBytes: MAX_BYTES })).stdout;
    } catch (error) {
      if (!(error instanceof ExecError) || error.code !== "EXEC_SPAWN") throw error;
      if (!error.message.includes("ENOENT")) throw new AgentError(error.code, error.message);
      this.missing.add(name);
      return undefined;
    }
  }
}
