// SPDX-License-Identifier: Apache-2.0

import type { NativeBinding } from "../../native/binding.ts";
import { findHostNetns } from "../../netns/host.ts";
import { portions } from "../../netns/scan.ts";
import { Proc } from "../../sys/proc.ts";
import type { NodeView } from "../source/kernel/node-view.ts";
import type { Collection } from "./collection.ts";
import { isPlainName } from "./layout.ts";
import { netnsDump } from "./netns-dump.ts";
import { type Command, Tools } from "./tools.ts";

/** Pods that are looked at at the same time. */
const LANES = 4;
/** Interfaces whose filters are shown. */
const MAX_DEVICES = 4;

/** Running programs takes its time: in the others only the kernel itself is asked. */
const MAX_PODS = 50;

const FILES: readonly (readonly [file: string, commands: readonly Command[]])[] = [
  ["addresses.txt", [["ip", "-details", "address"]]],
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

const NOT_RUN = "# not run: the kernel has no table for it here\n";

export interface RuleCommand {
  readonly command: Command;
  /** The kernel has nothing that it would show: each program that is not started is two ms of a core. */
  readonly empty: boolean;
}

/** By file, the programs that show a netns's rules. Reading with iptables makes no table, but for `-t`. */
export function ruleFiles(
  binding: Pick<NativeBinding, "nftTables" | "xtables">,
  netns: number,
): readonly (readonly [file: string, commands: readonly RuleCommand[]])[] {
  const tables = seen(() => binding.nftTables(netns));
  const lacks = (family: string) => tables?.every((name) => !name.startsWith(`${family} `)) ?? false;
  const lacksLegacy = (family: 4 | 6) => seen(() => binding.xtables(netns, family))?.length === 0;
  return [
    ["nft.txt", [{ command: ["nft", "list", "ruleset"], empty: tables?.length === 0 }]],
    [
      "iptables.txt",
      [
        { command: ["iptables-nft-save"], empty: lacks("ip") },
        { command: ["ip6tables-nft-save"], empty: lacks("ip6") },
        { command: ["iptables-legacy-save"], empty: lacksLegacy(4) },
        { command: ["ip6tables-legacy-save"], empty: lacksLegacy(6) },
      ],
    ],
  ];
}

/** undefined where it can't be read: then the program may say more. */
function seen<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

/**
 * The network namespaces of these pods and the node's: as the kernel tells them, of each, and as its own tools
 * show them, as far as those are installed.
 */
export async function collectKernel(
  collection: Collection,
  { binding, config, residents: node }: NodeView,
  uids: readonly string[],
): Promise<void> {
  const { procDir } = config;
  await collection.attempt("node/netns.json", async () => {
    const { handle } = findHostNetns(new Proc(procDir), false);
    try {
      await collection.json("node/netns.json", () => netnsDump(binding, handle.fd));
    } finally {
      handle.close();
    }
  });
  await collection.attempt("kernel/", async () => {
    const tools = new Tools();
    const residents = await node.all();
    try {
      const byUid = new Map(residents.map(({ podUid, containerId, netns }) => [podUid ?? containerId, netns.fd]));
      const found: (readonly [uid: string, netns: number])[] = [];
      for (const uid of uids) {
        const netns = byUid.get(uid);
        if (netns !== undefined && isPlainName(uid)) found.push([uid, netns]);
        else collection.fail(`kernel/${uid}/`, "no process of it is to be seen");
      }
      const portion = portions();
      for (const [uid, netns] of found) {
        await portion();
        await collection.json(`kernel/${uid}/netns.json`, () => netnsDump(binding, netns));
      }
      const waiting = found.slice(0, MAX_PODS);
      if (found.length > waiting.length) {
        collection.fail(
          "kernel/",
          `tools were run in ${MAX_PODS} of ${found.length} pods; --pod POD has them run in that`,
        );
      }
      const lane = async () => {
        for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
          await collectPod(collection, { tools, binding }, ...next);
        }
      };
      await Promise.all(Array.from({ length: LANES }, lane));
    } finally {
      for (const { netns } of residents) netns.close();
    }
    for (const name of tools.missing) collection.fail("kernel/", `${name} is not installed here`);
  });
}

interface Means {
  readonly tools: Tools;
  readonly binding: NativeBinding;
}

async function collectPod(
  collection: Collection,
  { tools, binding }: Means,
  uid: string,
  netns: number,
): Promise<void> {
  for (const [file, commands] of ruleFiles(binding, netns)) {
    await collection.text(`kernel/${uid}/${file}`, async () => {
      const parts: string[] = [];
      for (const { command, empty } of commands) {
        const text = empty ? `$ ${command.join(" ")}\n${NOT_RUN}` : await tools.transcript([command], netns);
        if (text !== undefined) parts.push(text);
      }
      return parts.length === 0 ? undefined : parts.join("");
    });
  }
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
