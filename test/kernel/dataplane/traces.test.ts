// SPDX-License-Identifier: Apache-2.0
// What is read of a pod's capture by who knows nothing of the pod and starts no engine.
import { afterEach, beforeEach, expect, test } from "vitest";
import { SCHEMA } from "../../../src/dataplane/ebpf/node.ts";
import type { Pinned } from "../../../src/dataplane/ebpf/pinned.ts";
import { tracesOf } from "../../../src/dataplane/traces.ts";
import { native } from "../../../src/native/load.ts";
import { forkCount } from "../../../src/sys/exec.ts";
import { labBpffs } from "../../support/lab-bpf.ts";
import { specOf, startDataplane } from "../../support/lab-dataplane.ts";
import { ENGINES } from "../../support/lab-engines.ts";
import { LabZtunnel } from "../../support/lab-ztunnel.ts";
import { inNetns, NetnsLab } from "../../support/netns-lab.ts";

let lab: NetnsLab;
let ztunnel: LabZtunnel;
beforeEach(async () => {
  lab = NetnsLab.create();
  ztunnel = await LabZtunnel.start(lab.pod.netns);
});
afterEach(async () => {
  await ztunnel.close();
  lab.close();
});

const pinned = (): Pinned => {
  const pods = native().bpfPinned(`${labBpffs()}/ambient-cni/v${SCHEMA}`);
  return { pods: new Map(pods.map((pod) => [pod.cookie, pod])), obstacle: undefined };
};
const NOTHING: Pinned = { pods: new Map(), obstacle: "no bpffs" };

test.each(ENGINES)("$name: absent, captured, draining, and without what it says of itself", async (engine) => {
  const { netns } = lab.pod;
  const traces = (from = pinned()) => tracesOf(native(), netns.fd, from);
  const dataplane = await startDataplane(native(), engine);
  try {
    expect(traces()).toEqual([]);
    const spec = specOf(lab);
    await dataplane.prepare(netns, spec);
    await dataplane.capture(netns, spec);
    const forks = forkCount();
    expect(traces()).toEqual([{ engine: engine.engine, mode: "captured" }]);
    // The pins are out of reach: the filters in the netns still tell that it is captured.
    const mode = engine.engine === "ebpf" ? undefined : "captured";
    expect(traces(NOTHING)).toEqual([{ engine: engine.engine, mode }]);
    expect(forkCount()).toBe(forks);
    await dataplane.drain(netns, spec);
    expect(traces()).toEqual([{ engine: engine.engine, mode: "draining" }]);
    await dataplane.release(netns);
    expect(traces()).toEqual([]);
  } finally {
    dataplane.close();
  }
});

test("a table of our name that says nothing of itself is a trace all the same, and others' are none", async () => {
  const { netns } = lab.pod;
  await inNetns(netns, "nft", "add table inet somebody; add table ip nat; add chain ip nat ISTIO_OUTPUT");
  expect(tracesOf(native(), netns.fd, NOTHING)).toEqual([]);
  await inNetns(netns, "nft", 'add table inet ambient-cni { comment "hello"; }');
  expect(tracesOf(native(), netns.fd, NOTHING)).toEqual([{ engine: "nftables", mode: undefined }]);
});
