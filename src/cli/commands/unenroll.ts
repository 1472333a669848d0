// SPDX-License-Identifier: Apache-2.0
import type { UnenrollReport } from "../../core/report/manual.ts";
import { addCommand, type Program, usageError } from "../command.ts";
import { EXIT } from "../exit.ts";
import { visible } from "../render/text.ts";

interface UnenrollOptions {
  readonly netns?: string;
  readonly dryRun?: boolean;
}

/** A release starts programs where rules have to go, in ms. */
const TIMEOUT_MS = 25_000;

export function addUnenroll(program: Program): void {
  addCommand<UnenrollOptions>(
    program,
    {
      usage: "unenroll",
      summary: "releases a network namespace that was captured by hand",
      examples: [
        "ambient-cni unenroll --netns /run/netns/lab",
        "ambient-cni unenroll --netns /proc/4711/ns/net --dry-run",
        "ambient-cni pods                     # those that are: MESH says manual",
      ],
    },
    (command) =>
      command
        .option("--netns <path>", "the network namespace, as its path on the node")
        .option("--dry-run", "only say what would be done"),
    async (session, { netns, dryRun = false }) => {
      if (netns === undefined || netns === "") usageError("--netns names the network namespace");
      const agent = await session.agent(session.globals.timeoutMs ?? TIMEOUT_MS);
      const report = await agent.change("unenroll", dryRun ? { netns, dryRun } : { netns });
      await session.print(report, () => unenrollText(report));
      return EXIT.ok;
    },
  );
}

const TEXT: Readonly<Record<UnenrollReport["result"], string>> = {
  released: "released: nothing of ours is left in it",
  draining: "no new connection is captured; it is released when the open ones end, or the drain time is over",
  nothing: "nothing of ours is in it",
};

const WOULD: Readonly<Record<UnenrollReport["result"], string>> = {
  released: "would be released",
  draining: "would take no new connection, and be released when the open ones end, or the drain time is over",
  nothing: TEXT.nothing,
};

export function unenrollText({ netns, dryRun = false, result }: UnenrollReport): string {
  return `${visible(netns)}: ${(dryRun ? WOULD : TEXT)[result]}\n`;
}
