// SPDX-License-Identifier: Apache-2.0
// What is read of a pod's capture by who knows nothing of the pod and starts no engine.
import { afterEach, beforeEach, expect, test } from "vitest";
import { SCHEMA } from "../../../src/dataplane/ebpf/node.ts";
import type { Pinned } from "../../../src/dataplane/ebpf/pinned.ts";
import { pinnedFacts } from "../../../src/dataplane/ebpf/pinned-facts.ts";
import { tracesOf } from "../../../src/dataplane/traces.ts";
import { writtenFacts } from "../../../src/dataplane/written.ts";
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
    for (const { ok, text } of [...writtenFacts(native(), netns.fd), ...pinnedFacts(native(), netns.fd, pinned())]) {
      expect(ok, text).toBe(true);
    }
    if (engine.engine === "ebpf") {
      const lost: Pinned = { pods: new Map(), obstacle: undefined };
      expect(pinnedFacts(native(), netns.fd, lost)).toEqual([
        { name: "capture", ok: false, text: expect.stringContaining("somebody removed the pins") },
      ]);
      expect(pinnedFacts(native(), netns.fd, NOTHING)).toMatchObject([{ ok: null }]);
    }
    // The pins are out of reach: the filters in the netns still tell that it is captured.
    const mode = engine.engine === "ebpf" ? undefined : "captured";
    expect(traces(NOTHING)).toEqual([{ engine: engine.engine, mode }]);
    expect(forkCount()).toBe(forks);
    await dataplane.drain(netns, spec);
    expect(traces()).toEqual([{ engine: engine.engine, mode: "draining" }]);
    expect(writtenFacts(native(), netns.fd)).toEqual([]);
    expect(pinnedFacts(native(), netns.fd, pinned())).toEqual([]);
    await dataplane.release(netns);
    expect(traces()).toEqual([]);
  } finally {
    dataplane.close();
  }
});

test.each([
  ["nftables", "nft flush chain inet ambient-cni nat-output", "not those that were written"],
  ["nftables", "nft insert rule inet ambient-cni nat-output accept", "not those that were written"],
  ["iptables-nft", "iptables-nft -t nat -F AMBIENT_CNI_OUT", "not those that were written"],
  ["iptables-legacy", "iptables-legacy -t nat -D AMBIENT_CNI_OUT 1", "not those that were written"],
])("%s: what somebody changes in the rules is seen by what they say of themselves", async (name, command, sentence) => {
  const { netns } = lab.pod;
  const engine = ENGINES.find((one) => one.name === name);
  if (engine === undefined) throw new Error(`no engine ${name}`);
  const dataplane = await startDataplane(native(), engine);
  try {
    await dataplane.prepare(netns, specOf(lab));
    await dataplane.capture(netns, specOf(lab));
    const facts = () => writtenFacts(native(), netns.fd);
    expect(facts()).toEqual([
      { name: "capture", ok: true, text: `${engine.engine}: its rules are those that were written` },
    ]);
    await inNetns(netns, "sh", "-c", command);
    expect(facts()).toEqual([{ name: "capture", ok: false, text: expect.stringContaining(sentence) }]);
    await dataplane.release(netns);
    expect(facts()).toEqual([]);
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
