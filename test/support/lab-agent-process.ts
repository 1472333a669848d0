// SPDX-License-Identifier: Apache-2.0
// A dataplane in a process of its own, so that it can be killed, or be of another version, while traffic
// goes on in the test's process. One JSON request per line on stdin, one answer per line on stdout.
import { createInterface } from "node:readline";
import { messageOf } from "../../src/core/errors.ts";
import type { CaptureSpec, EngineName } from "../../src/core/ports/dataplane.ts";
import { NodeDataplane } from "../../src/dataplane/dataplane.ts";
import { EbpfEngine } from "../../src/dataplane/ebpf/engine.ts";
import type { EbpfVersion } from "../../src/dataplane/ebpf/node.ts";
import { netfilterEngines } from "../../src/dataplane/engines.ts";
import { native } from "../../src/native/load.ts";
import { openNetns } from "../../src/native/netns.ts";
import { forkCount } from "../../src/sys/exec.ts";
import { LabCgroups } from "./lab-bpf.ts";
import { noMetrics, quiet } from "./lab-dataplane.ts";

export interface LabAgentOptions {
  readonly bpffs: string;
  readonly engine: "auto" | EngineName;
  readonly version?: EbpfVersion | undefined;
  /** Paths of netns. */
  readonly pods: readonly string[];
}

export interface LabAgentRequest {
  readonly call:
    | "handOver"
    | "start"
    | "capture"
    | "observe"
    | "drain"
    | "release"
    | "meet"
    | "collect"
    | "programs"
    | "forks";
  readonly pod: number;
  readonly spec: CaptureSpec | undefined;
}

const options: LabAgentOptions = JSON.parse(process.argv[2] ?? "{}");
let now = 0;
const ebpf = new EbpfEngine({
  binding: native(),
  logger: quiet,
  bpffs: { path: options.bpffs },
  cgroups: new LabCgroups(),
  clock: { now: () => now, after: () => () => undefined },
  version: options.version,
});
const dataplane = new NodeDataplane({
  binding: native(),
  logger: quiet,
  metrics: noMetrics,
  config: { engine: options.engine },
  engines: [ebpf, ...netfilterEngines(native(), quiet, undefined)],
});
const pods = options.pods.map((path) => openNetns(path));

async function answer({ call, pod, spec }: LabAgentRequest): Promise<unknown> {
  const netns = pods[pod];
  if (netns === undefined) throw new Error(`there is no pod ${pod}`);
  switch (call) {
    case "start":
      return await dataplane.start();
    case "programs":
      return ebpf.node.bpf.programs;
    case "forks":
      return forkCount();
    case "meet":
      return dataplane.meet({ connection: 1, pid: 0, pidfd: -1 });
    case "collect":
      // Each look is a minute after the one before.
      now += 60_000;
      return dataplane.collect();
    case "release":
      return await dataplane.release(netns);
    default:
      if (spec === undefined) throw new Error(`${call} needs a spec`);
      return call === "observe" ? dataplane.observe(netns, spec) : await dataplane[call](netns, spec);
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const reply = await answer(JSON.parse(line)).then(
    (result) => ({ result: result ?? null }),
    (error: unknown) => ({ error: messageOf(error) }),
  );
  process.stdout.write(`${JSON.stringify(reply)}\n`);
}
