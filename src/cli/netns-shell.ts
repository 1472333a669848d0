// SPDX-License-Identifier: Apache-2.0
// A shell, or one command, in a pod's network namespace: what people else do with crictl, jq and nsenter.
import { AgentError, codeOf, messageOf } from "../core/errors.ts";
import { findResidents } from "../netns/residents.ts";
import { runInForeground } from "../sys/foreground.ts";
import { joinCgroupOf } from "../sys/own-cgroup.ts";
import type { CliEnv } from "./env.ts";
import { visible } from "./render/text.ts";
import { viewNode } from "./source/kernel/node-view.ts";

const PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

export interface ShellTarget {
  readonly uid: string;
  /** For the prompt and messages. */
  readonly title: string;
  /** Empty: a shell. */
  readonly command: readonly string[];
}

/**
 * Runs it with the node's programs where this process may enter the node's file system, else with those that it has
 * itself. It shares nothing with the agent but, in the agent's container, the memory limit. Resolves with its exit status.
 * @throws AgentError POD_NOT_FOUND | NO_PROGRAM saying what can be done instead
 */
export async function netnsShell(env: CliEnv, { uid, title, command }: ShellTarget): Promise<number> {
  const { config, binding } = viewNode(env, "");
  const note = (text: string) => env.stderr.write(`ambient-cni: ${visible(text)}\n`);
  const residents = await findResidents(config.procDir);
  const resident = residents.find(({ podUid, containerId }) => (podUid ?? containerId) === uid);
  for (const other of residents) if (other !== resident) other.netns.close();
  if (resident === undefined) {
    throw new AgentError("POD_NOT_FOUND", `no process of ${title} is on this node, or it has the node's own network`);
  }
  const { netns, pid } = resident;
  const onNode = config.hostRoot === "/";
  // A process of the node itself is in no cgroup that the hooks cover: the leak guard would drop what it sends.
  if (onNode) {
    try {
      joinCgroupOf(config.procDir, pid);
    } catch (error) {
      note(`${messageOf(error)}: connections made here are not taken for the pod's`);
    }
  }
  const root = onNode ? undefined : `${config.procDir}/1/root`;
  let missing = "";
  if (root !== undefined) {
    try {
      binding.enterRoot(root);
    } catch (error) {
      const why = codeOf(error) === "EPERM" ? "this container has no CAP_SYS_CHROOT" : messageOf(error);
      missing = `the node's programs can't be reached from here: ${why}`;
      note(`${missing}; these are the container's own`);
    }
  }
  binding.enterNetns(netns.fd);
  netns.close();
  const shell = env.getenv("SHELL");
  const usable = onNode && shell?.startsWith("/") === true ? shell : "/bin/sh";
  const [program = usable, ...args] = command;
  try {
    return await runInForeground([program, ...args], {
      ...env.environment,
      PATH: missing === "" ? PATH : (env.getenv("PATH") ?? PATH),
      PS1: `${title} # `,
    });
  } catch (error) {
    if (codeOf(error) !== "ENOENT" && codeOf(error) !== "EACCES") throw error;
    throw new AgentError(
      "NO_PROGRAM",
      `${program}: ${codeOf(error)}${missing === "" ? "" : `, and ${missing}`}`,
      missing === ""
        ? "name a program that this node has, or its path"
        : `here: -- nft list ruleset, -- iptables-save; on the node: nsenter --net=/proc/${pid}/ns/net; or kubectl debug node/NAME --profile=sysadmin`,
    );
  }
}
