// SPDX-License-Identifier: Apache-2.0
// What a node may lack or have too much of: ebpf says why it does not work there, and nftables takes over.
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmdirSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { native } from "../../../../src/native/load.ts";
import { cgroupAt, freshBpffs, LabCgroups, makeCgroup } from "../../../support/lab-bpf.ts";
import { ChoiceLab, type ChoiceOptions } from "../../../support/lab-choice.ts";
import { specOf } from "../../../support/lab-dataplane.ts";
import { NetnsLab } from "../../../support/netns-lab.ts";
import { ScratchDir } from "../../../support/scratch-dir.ts";

const started: ChoiceLab[] = [];
let bpffs: string;

async function start(options: Partial<ChoiceOptions> = {}): Promise<ChoiceLab> {
  const lab = await ChoiceLab.start({ bpffs: { path: bpffs }, ...options });
  started.push(lab);
  return lab;
}

beforeEach(() => {
  bpffs = freshBpffs();
});
afterEach(() => {
  for (const { dataplane } of started.splice(0)) dataplane.close();
  native().bpfRemove(bpffs);
});

/** ebpf is not chosen for this reason, and a pod is captured nevertheless. */
async function expectNftables(lab: ChoiceLab, reason: string): Promise<void> {
  expect(lab.dataplane.tests.map(({ engine, works }) => ({ engine, works }))).toEqual([
    { engine: "ebpf", works: false },
    { engine: "nftables", works: true },
  ]);
  expect(lab.dataplane.tests[0]?.reason).toContain(reason);
  expect(lab.dataplane.engine).toBe("nftables");
  using pod = NetnsLab.create();
  expect(await lab.dataplane.capture(pod.pod.netns, specOf(pod))).toBe("nftables");
}

describe("a node without a bpffs that can be used", () => {
  test("none is reached", async () => {
    await expectNftables(await start({ bpffs: { reason: "no bpffs is reached" } }), "no bpffs is reached");
  });

  test("another file system is there, and nothing is left in it", async () => {
    using scratch = new ScratchDir();
    const { path } = scratch;
    await expectNftables(await start({ bpffs: { path } }), "it is not on a bpffs");
    expect(readdirSync(path)).toEqual([]);
  });

  test("it is read-only", async () => {
    using scratch = new ScratchDir();
    const { path } = scratch;
    execFileSync("mount", ["-t", "bpf", "-o", "ro", "bpf", path]);
    try {
      await expectNftables(await start({ bpffs: { path } }), "EROFS");
    } finally {
      execFileSync("umount", [path]);
    }
  });
});

test.each([
  ["override", "would be overridden by ours"],
  ["alone", "allows no other"],
])("a program of another tool above the pods (%s)", async (how, reason) => {
  const agent = await start();
  const { generation } = agent.ebpf.node.bpf;
  agent.dataplane.close();
  const above = makeCgroup("above");
  const pods = cgroupAt(mkdirAt(join(above.path, "pods")));
  const program = join(bpffs, "ambient-cni/v1/programs", generation, "ambient_connect4");
  const place = ["cgroup_inet4_connect", "pinned", program];
  execFileSync("bpftool", ["cgroup", "attach", above.path, ...place, ...(how === "override" ? ["override"] : [])]);
  try {
    const lab = await start({ cgroups: new LabCgroups(pods) });
    await expectNftables(lab, reason);
    expect(lab.dataplane.tests[0]?.reason).toContain(above.path);
  } finally {
    execFileSync("bpftool", ["cgroup", "detach", above.path, ...place]);
  }
  const lab = await start({ cgroups: new LabCgroups(pods) });
  expect(lab.dataplane.engine).toBe("ebpf");
  lab.dataplane.close();
  native().bpfRemove(bpffs);
  rmdirSync(pods.path);
  rmdirSync(above.path);
});

test("a program that the kernel refuses: why, in which words, and how much more it said", () => {
  using scratch = new ScratchDir();
  const source = scratch.file("broken.c");
  const object = scratch.file("broken.o");
  writeFileSync(
    source,
    `#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1); __type(key, __u32); __type(value, __u32); } one SEC(".maps");
SEC("tc") int broken(struct __sk_buff *skb) { __u32 key = 0, *value = bpf_map_lookup_elem(&one, &key); return *value; }
SEC("tc") int whole(struct __sk_buff *skb) { return 0; }
`,
  );
  const include = `/usr/include/${process.arch === "x64" ? "x86_64" : "aarch64"}-linux-gnu`;
  execFileSync("clang", ["-O2", "-g", "-target", "bpf", "-I", include, "-c", source, "-o", object]);
  expect(native().bpfVerify(readFileSync(object))).toEqual({
    broken: expect.stringMatching(
      /^Permission denied: R0 invalid mem access 'map_value_or_null' \(\d+ lines omitted\)$/,
    ),
  });
});

describe("what lies in the directory", () => {
  const v1 = (...path: string[]) => join(bpffs, "ambient-cni/v1", ...path);

  test("programs that were half pinned by an agent that died", async () => {
    const first = await start();
    const { generation } = first.ebpf.node.bpf;
    first.dataplane.close();
    // As if it had died before the rename, and another one while it loaded another version.
    const [half = ""] = readdirSync(v1("programs", generation));
    mkdirSync(v1("programs", `${generation}-new`));
    execFileSync("bpftool", [
      "prog",
      "pin",
      "pinned",
      v1("programs", generation, half),
      v1("programs", `${generation}-new`, half),
    ]);
    native().bpfRemove(v1("programs", generation));
    mkdirSync(v1("programs", "0123456789abcdef-new"));
    const second = await start();
    expect(second.dataplane.engine).toBe("ebpf");
    expect(readdirSync(v1("programs"))).toEqual([generation]);
  });

  test("names that mean nothing", async () => {
    const first = await start();
    first.dataplane.close();
    for (const place of [
      "pods/foreign",
      "ztunnel/foreign",
      "outbound/foreign",
      "foreign",
      "../foreign",
      "../v9/pods",
    ]) {
      mkdirSync(v1(place), { recursive: true });
    }
    const second = await start();
    expect(second.dataplane.tests[0]?.reason).toBeUndefined();
    expect(second.dataplane.engine).toBe("ebpf");
  });

  test("a map whose pin is gone: no pod is captured by programs that read another one", async () => {
    const first = await start();
    first.dataplane.close();
    unlinkSync(v1("maps/pods"));
    await expectNftables(await start(), "BPF map pods");
  });
});

function mkdirAt(path: string): string {
  mkdirSync(path);
  return path;
}
