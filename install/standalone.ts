// SPDX-License-Identifier: Apache-2.0
// Not chained: a configuration of our plugin alone, for meta-plugins. Multus finds it by its name when a
// pod (one with a sidecar, by the injector's annotation) asks for the NetworkAttachmentDefinition `istio-cni`.
// Ambient pods ask for nothing, so their capture comes from the watch.
import { join } from "node:path";
import { PLUGIN_NAME } from "../src/core/constants.ts";
import { AgentError } from "../src/core/errors.ts";
import type { ConfDir } from "./conf-dir.ts";
import { asciiJson } from "./go-json.ts";
import type { NetConf, PluginEntry } from "./netconf.ts";
import { absent, encode, newMode, type Placement, type PlacementConfig } from "./placement.ts";
import { onlyOurs } from "./primary.ts";

/** Upstream's, which sorts after every CNI's. */
const DEFAULT_NAME = "YYY-istio-cni.conf";
/** As upstream; Multus gives it to the plugin as it is. */
const CNI_VERSION = "0.3.1";

export const standaloneName = (config: Pick<PlacementConfig, "cniConfName">): string =>
  config.cniConfName === "" ? DEFAULT_NAME : config.cniConfName;

/** Written by us or by upstream for meta-plugins, under whatever name was configured then. */
export const isStandalone = (conf: NetConf): boolean => onlyOurs(conf) && conf.name === PLUGIN_NAME;

/** @throws AgentError CNI_CONF_UNSUPPORTED when another plugin's configuration has that name */
export function standalone(dir: ConfDir, config: PlacementConfig, entry: PluginEntry): Placement {
  const name = standaloneName(config);
  const current = dir.files.find((file) => file.name === name);
  if (current !== undefined && !onlyOurs(current.conf)) {
    throw new AgentError(
      "CNI_CONF_UNSUPPORTED",
      `${current.path} is another plugin's configuration, and CHAINED_CNI_PLUGIN is off`,
      "set CNI_CONF_NAME to a name of its own, or CHAINED_CNI_PLUGIN to true",
    );
  }
  const path = current?.path ?? join(dir.path, name);
  const bytes = encode(textOf(name, entry));
  if (current?.bytes.equals(bytes) === true) return { path, steps: [], warnings: [] };
  const mode = current?.mode ?? newMode(config);
  return { path, steps: [{ do: "write", path, was: current?.bytes ?? absent(dir, name), bytes, mode }], warnings: [] };
}

function textOf(name: string, entry: PluginEntry): string {
  const head = { cniVersion: CNI_VERSION, name: PLUGIN_NAME };
  const conf = name.endsWith(".conflist") ? { ...head, plugins: [entry] } : { ...head, ...entry };
  return `${asciiJson(conf, "  ")}\n`;
}
