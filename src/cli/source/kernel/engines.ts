// SPDX-License-Identifier: Apache-2.0
import type { EngineTest } from "../../../core/ports/dataplane.ts";
import type { EnginesReport } from "../../../core/report/engines.ts";
import { testEngines } from "../../../dataplane/choose.ts";
import { tryEbpf } from "../../../dataplane/ebpf/trial.ts";
import { netfilterEngines } from "../../../dataplane/engines.ts";
import { bootId } from "../../../sys/boot.ts";
import { VERSION } from "../../exit.ts";
import { lastEngines } from "../../last-engines.ts";
import { span } from "../../render/text.ts";
import { SILENT } from "../silent.ts";
import type { NodeView } from "./node-view.ts";
import { kernelPods } from "./pods.ts";

/**
 * Every engine's self-test: with `known` as the last agent found it since the node's boot; else, or if none did, made
 * now, with real connections in scratch namespaces, which leave nothing.
 */
export async function kernelEngines(view: NodeView, known = false): Promise<EnginesReport> {
  const { binding, config } = view;
  const { pods, ...head } = await kernelPods(view);
  const counted = (engine: string) => pods.filter((pod) => pod.engine === engine).length;
  const last = known ? await lastEngines(config.runDir, { bootId: bootId(), version: VERSION }) : undefined;
  if (last !== undefined) {
    const age = span((Date.parse(head.takenAt) - Date.parse(last.takenAt)) / 1000);
    const note = `${head.source.note}; self-tests of the last agent, ${age} ago: --now makes them anew`;
    const engines = last.engines.map((test) => ({ ...test, pods: counted(test.engine) }));
    return { ...head, source: { from: "kernel", note }, engine: null, engines };
  }
  const tests = [
    await tryEbpf(binding, config.procDir, SILENT),
    ...(await testEngines(netfilterEngines(binding, SILENT, config.forceIptablesBinary))),
  ];
  return {
    ...head,
    engine: null,
    engines: tests.map((test) => report(test, counted(test.engine))),
  };
}

function report({ engine, works, reason, losses, milliseconds }: EngineTest, pods: number) {
  return { engine, works, reason: reason ?? null, losses, milliseconds, pods };
}
