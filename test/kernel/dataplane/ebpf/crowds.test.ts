// SPDX-License-Identifier: Apache-2.0
// More outbound connections at once than one pod has ephemeral ports.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { NodeDataplane } from "../../../../src/dataplane/dataplane.ts";
import { native } from "../../../../src/native/load.ts";
import { LabCgroups } from "../../../support/lab-bpf.ts";
import { specOf, startDataplane } from "../../../support/lab-dataplane.ts";
import { EBPF } from "../../../support/lab-engines.ts";
import { LabPrograms } from "../../../support/lab-programs.ts";
import { LabZtunnel } from "../../../support/lab-ztunnel.ts";
import { NetnsLab } from "../../../support/netns-lab.ts";

const CROWD = 65_536;

let dataplane: NodeDataplane;
let programs: LabPrograms;
let lab: NetnsLab;

beforeAll(async () => {
  programs = await LabPrograms.compile(["lab-crowd"]);
  dataplane = await startDataplane(native(), EBPF);
});
afterAll(() => {
  dataplane.close();
  programs[Symbol.dispose]();
});
beforeEach(() => {
  lab = NetnsLab.create();
});
afterEach(() => lab.close());

/** With ztunnel's cgroup known, so that whoever listens in it next is seen to. */
async function captured(): Promise<void> {
  const ztunnel = await LabZtunnel.start(lab.pod.netns);
  await dataplane.capture(lab.pod.netns, specOf(lab));
  await ztunnel.close();
}

describe.each([4, 6] as const)("IPv%i", (family) => {
  test(`${CROWD} outbound connections are open at once, each led to its own destination`, async () => {
    await captured();
    const destinations = Array.from({ length: 16 }, (_, i) => (family === 4 ? `10.66.40.${i}` : `fd66::40:${i}`));
    const argv = ["lab-crowd", String(CROWD), ...destinations] as const;
    const [line = ""] = await programs.run(lab.pod.netns, LabCgroups.root, [...argv]);
    expect(JSON.parse(line)).toEqual({ open: CROWD, wrong: 0 });
  });
});
