// SPDX-License-Identifier: Apache-2.0
// Names and places, in a tree of plain directories; the kernel's own tree is in test/kernel/sys.
import { mkdirSync, statSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { CgroupHierarchy } from "../../../src/sys/cgroup.ts";
import { CgroupVantage } from "../../../src/sys/cgroup-vantage.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

const UID = "11111111-2222-3333-4444-555555555555";
const SLICE_UID = UID.replaceAll("-", "_");

let scratch: ScratchDir;
let root: string;
beforeEach(() => {
  scratch = new ScratchDir();
  root = scratch.file("tree");
  mkdirSync(root);
  writeFileSync(`${root}/cgroup.controllers`, "cpu memory pids\n");
});
afterEach(() => scratch[Symbol.dispose]());

function make(path: string, populated = true): string {
  const full = `${root}/${path}`;
  mkdirSync(full, { recursive: true });
  writeFileSync(`${full}/cgroup.events`, `populated ${populated ? 1 : 0}\nfrozen 0\n`);
  return full;
}

const hybrid = () => writeFileSync(`${root}/cgroup.controllers`, "\n");
const inode = (path: string) => statSync(path, { bigint: true }).ino;

describe("the pods' cgroup", () => {
  test.each(["kubepods", "kubepods.slice", "kubelet/kubepods", "kubelet.slice/kubelet-kubepods.slice"])(
    "%s",
    (path) => {
      const full = make(path);
      expect(new CgroupHierarchy(root).podsCgroup()).toEqual({ path: full, id: inode(full), isRoot: false });
    },
  );

  test.each(["kubepods-burstable.slice", "my-kubepods", "docker/kubepods", "system.slice"])("not %s", (path) => {
    make(path);
    expect(new CgroupHierarchy(root).podsCgroup()).toEqual({ path: root, id: inode(root), isRoot: true });
  });

  test("of two, left over by a change of kubelet's driver, the one with processes", () => {
    make("kubepods", false);
    const full = make("kubepods.slice");
    expect(new CgroupHierarchy(root).podsCgroup().path).toBe(full);
    make("kubepods");
    expect(new CgroupHierarchy(root).podsCgroup().isRoot).toBe(true);
  });

  test("one without processes counts only where v2 has the controllers", () => {
    const full = make("kubepods", false);
    expect(new CgroupHierarchy(root).podsCgroup().path).toBe(full);
    hybrid();
    expect(new CgroupHierarchy(root).podsCgroup().isRoot).toBe(true);
  });
});

describe("places in the tree", () => {
  const tree = new CgroupHierarchy("/cg");

  test.each([
    [`kubepods/besteffort/pod${UID}/abc`, `kubepods/besteffort/pod${UID}`],
    [
      `kubepods.slice/kubepods-pod${SLICE_UID}.slice/cri-containerd-a.scope`,
      `kubepods.slice/kubepods-pod${SLICE_UID}.slice`,
    ],
    [
      `kubelet.slice/kubelet-kubepods-besteffort-pod${SLICE_UID}.slice/x`,
      `kubelet.slice/kubelet-kubepods-besteffort-pod${SLICE_UID}.slice`,
    ],
    [`kubepods/pod${"0123456789abcdef".repeat(2)}/c`, `kubepods/pod${"0123456789abcdef".repeat(2)}`],
    [`kubepods/pod${UID}/c/kubepods/pod${UID.replace("1", "9")}/d`, `kubepods/pod${UID}`],
    [`kubepods/pod${UID}`, `kubepods/pod${UID}`],
    ["system.slice/docker-1.scope", "system.slice/docker-1.scope"],
    ["machine.slice/podman-1.scope/x", "machine.slice/podman-1.scope/x"],
    ["kubepods/podium/c", "kubepods/podium/c"],
  ])("the pod of %s", (path, pod) => {
    expect(tree.podLevel(`/cg/${path}`)).toBe(`/cg/${pod}`);
  });

  test("ancestors, levels and containment", () => {
    expect(tree.ancestors("/cg/a/b/c")).toEqual(["/cg", "/cg/a", "/cg/a/b"]);
    expect(tree.ancestors("/cg")).toEqual([]);
    expect([tree.level("/cg"), tree.level("/cg/a/b")]).toEqual([0, 2]);
    expect(tree.contains("/cg/a", "/cg/a/b")).toBe(true);
    expect(tree.contains("/cg/a", "/cg/a")).toBe(true);
    expect(tree.contains("/cg", "/cg/ab")).toBe(true);
    expect(tree.contains("/cg/a", "/cg/ab")).toBe(false);
    expect(() => tree.level("/cgroup")).toThrow("/cgroup is no cgroup below /cg");
  });
});

describe("paths as the kernel shows them", () => {
  const at = (begins: string, own?: string) =>
    new CgroupVantage(new CgroupHierarchy(root), { root: begins }, () =>
      own === undefined ? undefined : inode(`${root}/${own}`),
    );
  beforeEach(() => {
    make("kubepods/p1/c1");
    make("kubepods/p2/c2");
    make("system");
  });

  test("from the namespace in which the hierarchy begins", () => {
    expect(at("/").locate("/kubepods/p1/c1")).toBe(`${root}/kubepods/p1/c1`);
    expect(at("/").locate("/")).toBe(root);
    expect(at("/").locate("/kubepods/gone")).toBeUndefined();
    expect(at("/").locate("/../other")).toBeUndefined();
  });

  test("from a container in it: what has no common ancestor needs no more", () => {
    expect(at("/../../..").locate("/../../../system")).toBe(`${root}/system`);
    expect(at("/../../..").locate("/../../../../beside")).toBeUndefined();
  });

  test("from a container in it: what shares ancestors with us needs the place of our own root", () => {
    const inside = at("/../../..", "kubepods/p1/c1");
    expect(inside.locate("/../../p2/c2")).toBe(`${root}/kubepods/p2/c2`);
    expect(inside.locate("/")).toBe(`${root}/kubepods/p1/c1`);
    expect(inside.locate("/..")).toBe(`${root}/kubepods/p1`);
    expect(at("/../../..").locate("/../../p2/c2")).toBeUndefined();
  });

  test("from outside of a node that is a container itself", () => {
    const outside = at("/docker/n1");
    expect(outside.locate("/docker/n1/kubepods/p1")).toBe(`${root}/kubepods/p1`);
    expect(outside.locate("/docker/n2/kubepods/p1")).toBeUndefined();
    expect(outside.locate("/system")).toBeUndefined();
  });
});
