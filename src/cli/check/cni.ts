// SPDX-License-Identifier: Apache-2.0
// Whether the container runtime calls our plugin for new pods.
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { readConfDir, readSetAside } from "../../../install/conf-dir.ts";
import { hasOurs, inUse } from "../../../install/primary.ts";
import { PLUGIN_NAME } from "../../core/constants.ts";
import { codeOf } from "../../core/errors.ts";
import { type Check, type CheckContext, fail, ok, skip, warn } from "./check.ts";

/** Upstream's file in the run directory: a kubeconfig with the service account's token in it. */
const UPSTREAM_KUBECONFIG = "istio-cni-kubeconfig";

export const CNI_CHECKS: readonly Check[] = [
  {
    code: "AMB-201",
    category: "cni",
    title: "the plugin's binary is where runtimes look for it",
    pre: false,
    fix: "see the agent's log for scope cni-install; cniBinDir must be the directory that the runtime uses",
    about:
      "The chain names the plugin, and the runtime runs it from its directory of plugins. Without the binary no pod at all starts on the node.",
    run: ({ view }) => {
      const path = join(view.config.cniBinDir, PLUGIN_NAME);
      try {
        const { mode } = statSync(path);
        return mode & 0o111 ? ok(path) : fail(`${path} has mode ${(mode & 0o7777).toString(8)}: it can't be run`);
      } catch (error) {
        return fail(`${path}: ${codeOf(error)}`);
      }
    },
  },
  {
    code: "AMB-202",
    category: "cni",
    title: "the plugin is in the configuration by which pods start",
    pre: false,
    fix: "see `ambient-cni status` and the agent's log for scope cni-install; CNI_CONF_NAME pins a configuration",
    about:
      "Runtimes take the first configuration of their directory. If it does not name the plugin, pods start without it and are captured only once the agent's watch has seen them: their first connections may leave in the clear.",
    run: async ({ view }) => {
      if (!view.config.chained) return skip("not chained (CHAINED_CNI_PLUGIN=false): pods are captured by the watch");
      const used = inUse(await readConfDir(view.config.cniNetDir), view.config.cniConfName);
      if (used === undefined) return fail(`${view.config.cniNetDir} holds no valid configuration`);
      return hasOurs(used.conf) ? ok(used.path) : fail(`${used.path} holds ${used.conf.types.join(", ")}`);
    },
  },
  {
    code: "AMB-203",
    category: "cni",
    title: "nobody sets our configuration aside",
    pre: true,
    fix: "helm upgrade cilium --set cni.exclusive=false",
    about:
      "Cilium with cni.exclusive=true renames every configuration that is not its own to *.cilium_bak, and rewrites its own without our plugin. The agent puts it back; between the two, pods start without it.",
    run: async ({ view }) => {
      const { files } = await readSetAside(view.config.cniNetDir);
      const ours = files.filter(({ conf }) => hasOurs(conf)).map(({ name }) => name);
      return ours.length === 0 ? ok("nothing of ours is set aside") : warn(ours.join(", "));
    },
  },
  {
    code: "AMB-204",
    category: "cni",
    title: "the plugin is the last of its chain",
    pre: false,
    fix: "move it to the end of `plugins`, after what gives the pod its network",
    about:
      "It captures the pod as the plugins before it have left it. A plugin that comes after it may change addresses, routes or rules.",
    run: async ({ view }) => {
      const used = await ownConf(view);
      if (used === undefined) return skip("the plugin is in no configuration in use");
      const after = used.conf.types.slice(used.conf.types.lastIndexOf(PLUGIN_NAME) + 1);
      return after.length === 0 ? ok(used.name) : warn(`${used.name}: after it come ${after.join(", ")}`);
    },
  },
  {
    code: "AMB-205",
    category: "cni",
    title: "every configuration of the directory can be read",
    pre: true,
    fix: "correct or remove the file: containerd takes no configuration at all while its first one is broken",
    about: "A broken file is passed over by some runtimes and stops all pods of the node with others.",
    run: async ({ view }) => {
      const { passedOver } = await readConfDir(view.config.cniNetDir);
      if (passedOver.length === 0) return ok(view.config.cniNetDir);
      return warn(passedOver.map(({ name, reason }) => `${name}: ${reason}`).join("; "));
    },
  },
  {
    code: "AMB-206",
    category: "cni",
    title: "no credentials of upstream's plugin lie on the node",
    pre: false,
    fix: `remove ${UPSTREAM_KUBECONFIG} from CNI_AGENT_RUN_DIR: our plugin needs none`,
    about:
      "istio-cni leaves a kubeconfig with its service account's token on every node: whoever reads it may list the cluster's pods and annotate them. The agent deletes it once its own plugin is in place.",
    run: ({ view }) => {
      const found = entries(view.config.runDir).includes(UPSTREAM_KUBECONFIG);
      return found ? warn(join(view.config.runDir, UPSTREAM_KUBECONFIG)) : ok("none");
    },
  },
];

async function ownConf(view: CheckContext["view"]) {
  const used = inUse(await readConfDir(view.config.cniNetDir), view.config.cniConfName);
  return used !== undefined && hasOurs(used.conf) ? used : undefined;
}

function entries(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return [];
    throw error;
  }
}
