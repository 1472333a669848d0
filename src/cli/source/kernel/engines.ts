// SPDX-License-Identifier: Apache-2.0
import type { EngineTest } from "../../../core/ports/dataplane.ts";
import type { EnginesReport } from "../../../core/report/engines.ts";
import { testEngines } from "../../../dataplane/choose.ts";
import { tryEbpf } from "../../../dataplane/ebpf/trial.ts";
import { netfilterEngines } from "../../../dataplane/engines.ts";
import { SILENT } from "../silent.ts";
import type { NodeView } from "./node-view.ts";
import { kernelPods } from "./pods.ts";

/** Every engine's self-test, made now: real connections in scratch namespaces, which leave nothing. */
export async function kernelEngines(view: NodeView): Promise<EnginesReport> {
  const { binding, config } = view;
  const { pods, ...head } = await kernelPods(view);
  const tests = [
    await tryEbpf(binding, config.procDir, SILENT),
    ...(await testEngines(netfilterEngines(binding, SILENT, config.forceIptablesBinary))),
  ];
  return {
    ...head,
    engine: null,
    engines: tests.map((test) => report(test, pods.filter(({ engine }) => engine === test.engine).length)),
  };
}

function report({ engine, works, reason, losses, milliseconds }: EngineTest, pods: number) {
  return { engine, works, reason: reason ?? null, losses, milliseconds, pods };
}
