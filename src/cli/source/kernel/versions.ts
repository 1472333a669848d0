// SPDX-License-Identifier: Apache-2.0
import { release } from "node:os";
import type { VersionsReport } from "../../../core/report/versions.ts";
import { KNOBS } from "../../../dataplane/ebpf/node.ts";
import type { NodeView } from "./node-view.ts";

/** Versions of this program and of the kernel it runs on. */
export async function kernelVersions(view: NodeView): Promise<VersionsReport> {
  const { libbpf, schema, generation } = view.binding.bpfVersions(KNOBS);
  return {
    ...view.head(),
    agent: null,
    kernel: release(),
    nodejs: process.version,
    libbpf,
    bpfSchema: schema,
    bpfGeneration: generation,
  };
}
