// SPDX-License-Identifier: Apache-2.0
import { AgentError } from "../../../core/errors.ts";
import type { DocumentName, Documents } from "../../../core/report/documents.ts";
import type { CliEnv } from "../../env.ts";
import type { Query, Source } from "../source.ts";
import { type NodeView, viewNode } from "./node-view.ts";

type Readers = { readonly [Name in DocumentName]?: (view: NodeView, query: Query) => Promise<Documents[Name]> };

/** What can be had without the agent; each reader is loaded when its document is asked for. */
const READERS: Readers = {
  pods: async (view, { meant }) => {
    const { judgedPods, podsMeant } = await import("./pods.ts");
    return meant === undefined ? (await judgedPods(view)).report : podsMeant(view, meant);
  },
  inspect: async (view, { pod = "" }) => (await import("./inspect.ts")).kernelInspect(view, pod),
  verify: async (view, { pod = "" }) => (await import("./inspect.ts")).kernelVerify(view, pod),
  status: async (view) => (await import("./status.ts")).kernelStatus(view),
  engines: async (view, { known = "" }) => (await import("./engines.ts")).kernelEngines(view, known !== ""),
  config: async (view) => (await import("./settings.ts")).kernelSettings(view),
  version: async (view) => (await import("./versions.ts")).kernelVersions(view),
};

/** Reads the node itself. `note` says why. @throws AgentError CONFIG_INVALID */
export function openKernelSource(env: CliEnv, note: string): Source {
  const view = viewNode(env, note);
  return {
    read: async <Name extends DocumentName>(name: Name, query: Query = {}): Promise<Documents[Name]> => {
      const reader = READERS[name];
      if (reader === undefined) {
        throw new AgentError("NEEDS_AGENT", `only the agent knows this, and it can't be asked (${note})`);
      }
      return reader(view, query);
    },
  };
}
