// SPDX-License-Identifier: Apache-2.0
import { existsSync } from "node:fs";
import type { Config } from "../../../core/config/config.ts";
import { parseConfig } from "../../../core/config/parse.ts";
import { type DocumentSource, type Head, head } from "../../../core/report/document.ts";
import type { NativeBinding } from "../../../native/binding.ts";
import { native } from "../../../native/load.ts";
import { NodeResidents } from "../../../netns/residents.ts";
import type { CliEnv } from "../../env.ts";

/** The node as a process of ours sees it, without the agent. */
export interface NodeView {
  readonly config: Config;
  readonly binding: NativeBinding;
  /** That of this process, with what was found out about where it runs. */
  readonly environment: CliEnv["environment"];
  /** Variables of it that nobody has set. */
  readonly foundOut: readonly string[];
  readonly residents: NodeResidents;
  head(): Head;
}

/**
 * In the agent's pod the node is at /host; on the node itself it is where it is. Settings are those of this
 * process: in the pod they are the agent's, but for the flags that its container was given.
 * @throws AgentError CONFIG_INVALID
 */
export function viewNode(env: CliEnv, note: string): NodeView {
  const source: DocumentSource = { from: "kernel", note };
  const foundOut = hostRoot(env.environment);
  const environment = { ...env.environment, ...foundOut };
  const { config } = parseConfig(environment, []);
  return {
    config,
    environment,
    foundOut: Object.keys(foundOut),
    binding: native(),
    residents: new NodeResidents(config.procDir),
    head: () => head(source, config.nodeName || null, env.now()),
  };
}

function hostRoot(environment: CliEnv["environment"]): Readonly<Record<string, string>> {
  const told = (environment.AMBIENT_CNI_HOST_ROOT ?? "") !== "" || existsSync("/host/proc/1");
  return told ? {} : { AMBIENT_CNI_HOST_ROOT: "/" };
}
