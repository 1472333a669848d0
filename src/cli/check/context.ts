// SPDX-License-Identifier: Apache-2.0
import { messageOf } from "../../core/errors.ts";
import type { DocumentSource } from "../../core/report/document.ts";
import type { DocumentName, Documents } from "../../core/report/documents.ts";
import type { Session } from "../command.ts";
import { viewNode } from "../source/kernel/node-view.ts";
import { kernelPods } from "../source/kernel/pods.ts";
import type { CheckContext } from "./check.ts";
import { NodeFacts } from "./node-facts.ts";

export interface Answerer {
  readonly source: DocumentSource;
  /** Why neither the agent nor the kernel could be asked. */
  readonly error?: unknown;
}

/** Who answers for the pods: the agent, or the kernel without it. Never throws: then the kernel alone is looked at. */
export async function answererOf({ read }: Pick<CheckContext, "read">): Promise<Answerer> {
  try {
    // The smallest document.
    return { source: (await read("version")).source };
  } catch (error) {
    return { source: { from: "kernel", note: messageOf(error) }, error };
  }
}

/** What checks look at: the node by this process, and the agent's documents where there is an agent. */
export async function openContext(session: Session): Promise<CheckContext> {
  const view = viewNode(session.env, "");
  const source = await session.source();
  const known = new Map<string, Promise<unknown>>();
  const once = <T>(key: string, make: () => Promise<T>): Promise<T> => {
    const making = known.get(key) ?? make();
    known.set(key, making);
    // The entry of a key is what `make` of that key makes.
    return making as Promise<T>;
  };
  const seenPods = () => once("kernel pods", async () => (await kernelPods(view)).pods);
  return {
    view,
    facts: new NodeFacts(view, seenPods),
    read: <Name extends DocumentName>(name: Name) => once<Documents[Name]>(name, () => source.read(name)),
    kernelPods: seenPods,
    inspect: (pod) => once(`inspect ${pod}`, () => source.read("inspect", { pod })),
    verify: (pod) => once(`verify ${pod}`, () => source.read("verify", { pod })),
  };
}
