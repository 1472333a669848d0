// SPDX-License-Identifier: Apache-2.0
// Which engine a pod would get, and what speaks against each of the others, for people.
import { AgentError } from "../core/errors.ts";
import type { CaptureSpec, EngineName, EngineTest } from "../core/ports/dataplane.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import { type Assignment, type Fallback, notCapturable } from "./assignment.ts";
import type { Engine } from "./engine.ts";

export interface EngineChoice {
  readonly engine: Engine;
  /** Every other engine, and why it is not that one. */
  readonly others: readonly { readonly engine: EngineName; readonly reason: string }[];
}

/**
 * `wanted`: somebody asks for this engine, whatever the node and the pod say. Reads the kernel, no fork.
 * @throws AgentError NO_ENGINE for one that does not work here, POD_NOT_CAPTURABLE with the reasons
 */
export function choiceFor(
  assigned: Assignment,
  engines: readonly Engine[],
  tests: readonly EngineTest[],
  netns: NetnsHandle,
  spec: CaptureSpec,
  wanted: EngineName | undefined,
): EngineChoice {
  const broken = (name: EngineName) => tests.find((test) => test.engine === name && !test.works)?.reason;
  const fallbacks: Fallback[] = [];
  const { value: best } = assigned.candidates(netns, spec, fallbacks).next();
  const engine = wanted === undefined ? best : engines.find(({ name }) => name === wanted);
  if (engine === undefined) throw notCapturable(spec, fallbacks);
  const reason = broken(engine.name);
  if (reason !== undefined) {
    throw new AgentError("NO_ENGINE", `${engine.name} does not work on this node: ${reason}`);
  }
  const obstacle = engine.ineligible(netns, spec);
  if (obstacle !== undefined) {
    throw new AgentError("POD_NOT_CAPTURABLE", `${spec.pod} can't be captured by ${engine.name}: ${obstacle}`);
  }
  const against = (other: Engine): string => {
    const why = broken(other.name);
    if (why !== undefined) return `does not work on this node: ${why}`;
    const fallback = fallbacks.find((one) => one.engine === other.name);
    if (fallback !== undefined) return fallback.reason;
    if (other === best) return "the pod would get this one; another was asked for";
    if (assigned.knows(other)) return "comes after the one that the pod would get";
    return "works, and this node is told not to use it (AMBIENT_CNI_ENGINE)";
  };
  return {
    engine,
    others: engines
      .filter((other) => other !== engine)
      .map((other) => ({ engine: other.name, reason: against(other) })),
  };
}
