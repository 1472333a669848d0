// SPDX-License-Identifier: Apache-2.0
// Every call to the file system fails once, is cut short, or is the last that the process makes: what runtimes see is
// at every moment the configuration from before or the one from after, and the next run finishes what was begun.
import { chownSync, lstatSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import timers from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { InstallerConfig } from "../../../install/installer.ts";
import { AgentError } from "../../../src/core/errors.ts";
import { CniNode, fixture } from "../../support/cni-node.ts";
import { FILE_FAULTS, type FileFault, FileFaults } from "../../support/faulty-files.ts";
import { runtimeView } from "../../support/runtime-view.ts";

interface Course {
  readonly files: Readonly<Record<string, Buffer | string>>;
  readonly config?: Partial<InstallerConfig>;
  /** What was done before. */
  readonly past?: (node: CniNode) => Promise<unknown>;
}

const CALICO = fixture("10-calico.conflist");
const CILIUM = fixture("05-cilium.conflist");
const MULTUS = fixture("00-multus.conf");
const UPSTREAM = fixture("50-upstream.conflist");
const BRIDGE = '{"type":"bridge","name":"multus-cni-network","cniVersion":"0.3.1"}';
const OWNED = { istioOwnedConfig: true };

const COURSES: Readonly<Record<string, Course>> = {
  "beside a .conflist": { files: { "10-calico.conflist": CALICO, "20-other.conflist": CILIUM } },
  "beside a .conf": { files: { "00-multus.conf": MULTUS, "10-calico.conflist": CALICO } },
  "beside a .json": { files: { "00-multus.json": MULTUS, "10-calico.conflist": CALICO } },
  "beside a .conf whose name as a list is taken": { files: { "10-x.conf": MULTUS, "10-x.conflist": CALICO } },
  "as istio-owned": { files: { "10-x.conf": MULTUS, "20-other.conflist": CALICO }, config: OWNED },
  "as istio-owned of another name, with the older copy there": {
    files: { "10-calico.conflist": CALICO, "20-other.conflist": CILIUM },
    config: { ...OWNED, istioOwnedConfigName: "00-mesh.conflist" },
    past: (node) => node.installer(OWNED).install(),
  },
  "chained, with istio-owned before": {
    files: { "10-calico.conflist": CALICO, "20-other.conflist": CILIUM },
    past: (node) => node.installer(OWNED).install(),
  },
  "alone, for Multus": { files: { "10-calico.conflist": CALICO }, config: { chained: false } },
  pinned: { files: { "05-cilium.conflist": CILIUM, "10-x.conf": MULTUS }, config: { cniConfName: "10-x.conf" } },
  "in the place of upstream's entry": {
    files: { "50-upstream.conflist": UPSTREAM, "60-other.conflist": CALICO },
    past: async (node) => writeFileSync(node.dir.file("run/istio-cni-kubeconfig"), "token"),
  },
  "over an older entry and plugin of ours": {
    files: { "10-calico.conflist": CALICO, "20-other.conflist": CILIUM },
    past: async (node) => {
      await node.installer().install();
      node.write("10-calico.conflist", node.read("10-calico.conflist").replace("namespace", "strict"));
      writeFileSync(node.binary, "the older plugin");
    },
  },
  "over a list of ours whose .conf was written again": {
    files: { "00-multus.conf": BRIDGE, "10-calico.conflist": CALICO },
    past: async (node) => {
      await node.installer().install();
      node.write("00-multus.conf", MULTUS);
    },
  },
};

/** What is to be given back looks like another's. */
const SAME = new Set([
  "as istio-owned of another name, with the older copy there",
  "chained, with istio-owned before",
  "pinned",
  "over an older entry and plugin of ours",
  "over a list of ours whose .conf was written again",
]);

// Runtimes look at these directories only between two changes: nothing has to wait for them.
const { setTimeout } = timers;
beforeAll(() => {
  Object.assign(timers, { setTimeout: () => Promise.resolve() });
  syncBuiltinESMExports();
});
afterAll(() => {
  Object.assign(timers, { setTimeout });
  syncBuiltinESMExports();
});

const OWNER = [4711, 4712] as const;

async function prepare({ files, past }: Course): Promise<CniNode> {
  const node = new CniNode();
  for (const [name, content] of Object.entries(files)) {
    node.write(name, content, 0o640);
    chownSync(node.conf(name), ...OWNER);
  }
  await past?.(node);
  return node;
}

/** Everything there is, with bytes, mode and owner. */
function snapshot(node: CniNode, trimmed = false): unknown[][] {
  return ["net.d", "bin", "run"].flatMap((directory) =>
    readdirSync(node.dir.file(directory))
      .sort()
      .map((name) => {
        const path = node.dir.file(`${directory}/${name}`);
        const { mode, uid, gid } = lstatSync(path);
        const text = readFileSync(path, "latin1");
        return [`${directory}/${name}`, trimmed ? text.trimEnd() : text, mode & 0o7777, uid, gid];
      }),
  );
}

const netDir = (node: CniNode) => snapshot(node).filter(([path]) => String(path).startsWith("net.d"));

/** By what pods start. */
const view = (node: CniNode): string => JSON.stringify(runtimeView(node.netDir)?.plugins);

/** Whoever reads it knows where and what. */
function expectTold(error: unknown, node: CniNode): void {
  if (error === undefined) return;
  expect(error).toBeInstanceOf(AgentError);
  if (!(error instanceof AgentError)) return;
  expect(error.message).toContain(node.dir.file(""));
  expect(error.remedy).toMatch(/\w/);
}

type Action = "install" | "restore";

async function expectEverywhere(fault: FileFault, action: Action, course: Course, full = false): Promise<number> {
  using start = await prepare(course);
  const original = netDir(start);
  if (action === "restore") await start.installer(course.config).install();
  using whole = start.copy();
  const views = [view(whole)];
  await whole.installer(course.config)[action]();
  views.push(view(whole));
  // Killed before it has cut off the white space behind the text.
  const trimmed = full && fault === "killed";
  const wanted = snapshot(whole, trimmed);
  if (action === "restore" && course.past === undefined) expect(netDir(whole)).toEqual(original);
  for (let calls = 0; ; calls++) {
    using node = start.copy();
    const look = () => expect(views).toContain(view(node));
    // Who reads while a file is written in its place has to read again.
    const faults = new FileFaults(node.dir.file(""), full && fault === "short" ? () => undefined : look);
    const { unmade, error } = await faults.during(fault, calls, () => node.installer(course.config)[action](), full);
    try {
      expectTold(fault === "killed" ? undefined : error, node);
      for (let runs = unmade === undefined ? 2 : 1; runs > 0; runs--) {
        const again = await faults.during("refused", Number.POSITIVE_INFINITY, () =>
          node.installer(course.config)[action](),
        );
        expect(again.error).toBeUndefined();
        expect(snapshot(node, trimmed)).toEqual(wanted);
      }
    } catch (error) {
      throw new Error(`after ${calls} calls, at ${unmade ?? "the end"}: ${(error as Error).message}`, { cause: error });
    }
    if (unmade === undefined) return calls;
  }
}

describe.each(FILE_FAULTS)("%s", (fault) => {
  it.each(Object.entries(COURSES))("while it installs %s", async (_name, course) => {
    const calls = await expectEverywhere(fault, "install", course);
    expect(calls).toBeGreaterThan(0);
  });

  it("while it gives back with a disk that is full", async () => {
    const { "beside a .conflist": list, "beside a .conf": single } = COURSES;
    for (const course of [list, single])
      if (course !== undefined) await expectEverywhere(fault, "restore", course, true);
  });

  it.each(Object.entries(COURSES).filter(([name]) => !SAME.has(name)))(
    "while it gives back what it installed %s",
    async (_name, course) => {
      await expectEverywhere(fault, "restore", course);
    },
  );
});
