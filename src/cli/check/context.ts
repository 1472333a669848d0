// SPDX-License-Identifier: Apache-2.0
import type { DocumentName, Documents } from "../../core/report/documents.ts";
import type { Session } from "../command.ts";
import { viewNode } from "../source/kernel/node-view.ts";
import { kernelPods } from "../source/kernel/pods.ts";
import type { CheckContext } from "./check.ts";

/** What checks look at: the node by this process, and the agent's documents where there is an agent. */
export async function openContext(session: Session): Promise<CheckContext> {
  const view = viewNode(session.env, "");
  const source = await session.source();
  const known = new Map<DocumentName, Promise<unknown>>();
  return {
    view,
    read: async <Name extends DocumentName>(name: Name): Promise<Documents[Name]> => {
      const reading = known.get(name) ?? source.read(name);
      known.set(name, reading);
      // The entry of a name is the document of that name.
      return (await reading) as Documents[Name];
    },
    kernelPods: async () => (await kernelPods(view)).pods,
    inspect: (uid) => source.read("inspect", { pod: uid }),
    verify: (uid) => source.read("verify", { pod: uid }),
  };
}
