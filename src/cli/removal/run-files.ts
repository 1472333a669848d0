// SPDX-License-Identifier: Apache-2.0
// What an agent has left in the directories that it shares with the plugin and with ztunnel.
import { lstatSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import type { Config } from "../../core/config/config.ts";
import { RUN_FILE } from "../../core/constants.ts";
import { AgentError, codeOf } from "../../core/errors.ts";
import { rootedPath } from "../../sys/rooted.ts";
import type { Steps } from "./steps.ts";

const FILES = [RUN_FILE.state, RUN_FILE.engines, RUN_FILE.manual, RUN_FILE.pluginLog, `${RUN_FILE.pluginLog}.1`];
const AGENT_SOCKETS = [RUN_FILE.pluginSocket, RUN_FILE.debugSocket];
const CONNECT_MS = 2000;

type RunConfig = Pick<Config, "hostRoot" | "runDir" | "ztunnelSocket">;

/** Socket of an agent that is there, ours or istio-cni's; undefined: there is none. @throws AgentError NOT_PERMITTED */
export async function livingAgent(config: RunConfig): Promise<string | undefined> {
  for (const dir of placesOf(config.runDir, config.hostRoot)) {
    for (const name of AGENT_SOCKETS) if (await isServed(join(dir, name))) return join(dir, name);
  }
  return undefined;
}

/** Files, and sockets that nobody serves any more. */
export async function removeRunFiles(config: RunConfig, steps: Steps): Promise<void> {
  const sockets = placesOf(config.ztunnelSocket, config.hostRoot);
  for (const dir of placesOf(config.runDir, config.hostRoot)) {
    for (const name of FILES) await removeFile(join(dir, name), steps);
    sockets.push(...[...AGENT_SOCKETS, RUN_FILE.logSocket, RUN_FILE.netnsSocket].map((name) => join(dir, name)));
  }
  for (const path of sockets) {
    if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() === true && !(await isServed(path))) {
      await removeFile(path, steps);
    }
  }
}

/** In the agent's container they are mounted where they are on the node; elsewhere the node is below `root`. */
function placesOf(path: string, root: string): string[] {
  return [...new Set([path, rootedPath(root, path)])];
}

async function removeFile(path: string, steps: Steps): Promise<void> {
  if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return;
  await steps.take(["remove", "removed"], path, () => rmSync(path));
}

function isServed(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path });
    const timer = setTimeout(() => end(true), CONNECT_MS);
    const end = (served: boolean) => {
      clearTimeout(timer);
      socket.destroy();
      resolve(served);
    };
    socket.on("connect", () => end(true));
    socket.on("error", (error) => {
      const code = codeOf(error);
      // A queue that is full, or a socket of another kind: somebody is there.
      if (!["EACCES", "EPERM"].includes(code)) end(code === "EAGAIN" || code === "EPROTOTYPE");
      else {
        clearTimeout(timer);
        reject(new AgentError("NOT_PERMITTED", `not permitted: ${code} ${path}`, "this needs root"));
      }
    });
  });
}
