// SPDX-License-Identifier: Apache-2.0
import { existsSync } from "node:fs";
import type { Config } from "../../core/config/config.ts";
import { parseConfig } from "../../core/config/parse.ts";
import type { SettingsReport } from "../../core/report/settings.ts";
import { rootedPath } from "../../sys/rooted.ts";
import type { NodeView } from "../source/kernel/node-view.ts";

/** Settings by which the agent finds what checks look at, and not those by which it finds the node. */
const HEEDED = [
  ...["MOUNTED_CNI_NET_DIR", "AMBIENT_CNI_BIN_DIR", "CNI_AGENT_RUN_DIR"],
  ...["CNI_CONF_NAME", "CHAINED_CNI_PLUGIN", "NODE_NAME"],
];

/**
 * The node as the agent is set to see it, by its own settings where there is one: this process's are not the agent's
 * on the node itself, where nobody sets any.
 */
export function agentView(view: NodeView, { source, settings, onNode }: SettingsReport): NodeView {
  if (source.from !== "agent") return view;
  const given = settings.filter(({ setting, value }) => HEEDED.includes(setting) && value !== "");
  const told = parseConfig(Object.fromEntries(given.map(({ setting, value }) => [setting, value])), []).config;
  const reached = (name: "cniNetDir" | "cniBinDir" | "runDir") => pathHere(view.config, told[name], onNode?.[name]);
  const config: Config = {
    ...view.config,
    chained: told.chained,
    cniConfName: told.cniConfName,
    nodeName: told.nodeName === "" ? view.config.nodeName : told.nodeName,
    cniNetDir: reached("cniNetDir") ?? view.config.cniNetDir,
    cniBinDir: reached("cniBinDir") ?? view.config.cniBinDir,
    runDir: reached("runDir") ?? view.config.runDir,
  };
  return { ...view, config };
}

/** In the agent's container its own path; elsewhere the node's, below the node's root. */
function pathHere({ hostRoot }: Config, own: string, onNode: string | null | undefined): string | undefined {
  const there = onNode === null || onNode === undefined ? [] : [rootedPath(hostRoot, onNode)];
  const places = hostRoot === "/" ? there : [own, ...there];
  return places.find((place) => existsSync(place));
}
