// SPDX-License-Identifier: Apache-2.0
import type { DocumentName, Documents } from "../../core/report/documents.ts";
import type { Session } from "../command.ts";
import { type NodeView, viewNode } from "../source/kernel/node-view.ts";
import { kernelPods } from "../source/kernel/pods.ts";
import type { SessionSource } from "../source/source.ts";
import { agentView } from "./agent-view.ts";
import type { CheckContext, MadeProofs } from "./check.ts";
import { NodeFacts } from "./node-facts.ts";
import { dropsOf } from "./node-network.ts";

/** Without the agent, or where it may not be asked, as this process is set. */
async function seenAsTheAgent(view: NodeView, source: SessionSource): Promise<NodeView> {
  try {
    return agentView(view, await source.read("config"));
  } catch {
    return view;
  }
}

/** What checks look at: the node by this process, and the agent's documents where there is an agent. */
export async function openContext(session: Session): Promise<CheckContext> {
  const source = await session.source();
  const view = await seenAsTheAgent(viewNode(session.env, ""), source);
  const known = new Map<string, Promise<unknown>>();
  const once = <T>(key: string, make: () => Promise<T>): Promise<T> => {
    const making = known.get(key) ?? make();
    known.set(key, making);
    // The entry of a key is what `make` of that key makes.
    return making as Promise<T>;
  };
  const seenPods = () => once("kernel pods", async () => (await kernelPods(view)).pods);
  const read = <Name extends DocumentName>(name: Name) => once<Documents[Name]>(name, () => source.read(name));
  const drops = async (pod: string): Promise<number | undefined> => {
    const netns = (await read("pods")).pods.find(({ uid }) => uid === pod)?.netns ?? undefined;
    const pid = netns === undefined ? undefined : await view.residents.processIn(netns);
    return pid === undefined ? undefined : dropsOf(view.config.procDir, pid);
  };
  const proved = async (pod: string): Promise<MadeProofs> => {
    const before = await drops(pod);
    const { proofs, problem } = await source.read("verify", { pod });
    const after = before === undefined ? undefined : await drops(pod);
    return { proofs, problem, dropped: before === undefined || after === undefined ? undefined : after - before };
  };
  return {
    view,
    facts: new NodeFacts(view, seenPods),
    read,
    kernelPods: seenPods,
    inspect: (pod) => once(`inspect ${pod}`, () => source.read("inspect", { pod })),
    verify: (pod) => once(`verify ${pod}`, () => proved(pod)),
  };
}
