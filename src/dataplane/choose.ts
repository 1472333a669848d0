// SPDX-License-Identifier: Apache-2.0
import { AgentError } from "../core/errors.ts";
import type { EngineName, EngineTest } from "../core/ports/dataplane.ts";
import type { Engine } from "./engine.ts";

/** Best first. */
const PREFERENCE: readonly EngineName[] = ["ebpf", "nftables", "iptables"];

/** Self-tests of all engines, best first, one after the other: they share sysctls of one kernel. */
export async function testEngines(engines: readonly Engine[]): Promise<readonly EngineTest[]> {
  const tests: EngineTest[] = [];
  for (const engine of inOrder(engines)) tests.push(await engine.selfTest());
  return tests;
}

/**
 * The engines that pods may get, in this order: the best that works, or the one that was asked for, and
 * behind it those that a pod gets which the ones before can't capture.
 * @throws AgentError NO_ENGINE with every engine's reason.
 */
export function chooseEngines(
  engines: readonly Engine[],
  tests: readonly EngineTest[],
  wanted: "auto" | EngineName,
): readonly [Engine, ...Engine[]] {
  const works = (engine: Engine) => tests.some((test) => test.engine === engine.name && test.works);
  const ordered = inOrder(engines);
  const from = wanted === "auto" ? 0 : ordered.findIndex(({ name }) => name === wanted);
  const [first, ...others] = from < 0 ? [] : ordered.slice(from).filter(works);
  if (first !== undefined && (wanted === "auto" || first.name === wanted)) return [first, ...others];
  const reasons = tests.map(({ engine, works: ok, reason }) => `${engine}: ${ok ? "works" : reason}`).join("; ");
  const asked = wanted === "auto" ? "no engine works on this node" : `engine ${wanted} is not available on this node`;
  throw new AgentError(
    "NO_ENGINE",
    `${asked} (${reasons === "" ? "none was tested" : reasons})`,
    wanted === "auto"
      ? "the node needs cgroup2 and a bpffs, or nf_tables with NAT, or iptables, and their programs in the agent's image"
      : "set AMBIENT_CNI_ENGINE=auto, or one of the engines that work",
  );
}

function inOrder(engines: readonly Engine[]): Engine[] {
  return [...engines].sort((a, b) => PREFERENCE.indexOf(a.name) - PREFERENCE.indexOf(b.name));
}
