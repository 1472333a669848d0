// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from "vitest";
import { cgroupAncestors, cgroupOwner } from "../../../src/netns/cgroup.ts";

const UID = "0b5f1f3a-9c11-4d6e-8f6a-2b7c1d9e0f11";
const SLICE = UID.replaceAll("-", "_");
const OTHER = "11111111-2222-3333-4444-555555555555";
const HASH = "8b1b2d0a5f0b3c4d5e6f708192a3b4c5";
const C = "a".repeat(64);
const D = "0123456789abcdef".repeat(4);
const none = new Set<string>();

describe("what kubelet and the runtimes write", () => {
  test.each([
    ["v2, cgroupfs, best effort", `0::/kubepods/besteffort/pod${UID}/${C}`],
    ["v2, cgroupfs, guaranteed", `0::/kubepods/pod${UID}/${C}`],
    [
      "v2, systemd, containerd",
      `0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${SLICE}.slice/cri-containerd-${C}.scope`,
    ],
    ["v2, systemd, guaranteed", `0::/kubepods.slice/kubepods-pod${SLICE}.slice/cri-containerd-${C}.scope`],
    [
      "v2, systemd, CRI-O",
      `0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod${SLICE}.slice/crio-${C}.scope`,
    ],
    [
      "CRI-O with crun's sub-cgroup",
      `0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod${SLICE}.slice/crio-${C}.scope/container`,
    ],
    [
      "systemd inside the container",
      `0::/kubepods.slice/kubepods-pod${SLICE}.slice/cri-containerd-${C}.scope/system.slice/x.service`,
    ],
    [
      "v2, systemd, cri-dockerd",
      `0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod${SLICE}.slice/docker-${C}.scope`,
    ],
    [
      "containerd with kubelet's systemd and its own cgroupfs driver",
      `0::/system.slice/containerd.service/kubepods-besteffort-pod${SLICE}.slice:cri-containerd:${C}`,
    ],
    ["seen from the agent's cgroup namespace, cgroupfs", `0::/../../besteffort/pod${UID}/${C}`],
    ["seen from a pod of the same class", `0::/../../pod${UID}/${C}`],
    [
      "seen from the agent's cgroup namespace, systemd",
      `0::/../../kubepods-besteffort.slice/kubepods-besteffort-pod${SLICE}.slice/cri-containerd-${C}.scope`,
    ],
    ["seen from a pod of the same slice", `0::/../kubepods-besteffort-pod${SLICE}.slice/cri-containerd-${C}.scope`],
    [
      "kind, systemd",
      `0::/docker/${D}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod${SLICE}.slice/cri-containerd-${C}.scope`,
    ],
    ["kind, cgroupfs", `0::/docker/${D}/kubelet/kubepods/besteffort/pod${UID}/${C}`],
    ["kind on v1, twice nested", `3:cpuset:/docker/${D}/docker/${D}/kubepods/burstable/pod${UID}/${C}`],
    ["k3d, k3s in docker", `0::/docker/${D}/kubepods/besteffort/pod${UID}/${C}`],
    [
      "k3s rootless",
      `0::/user.slice/user-1000.slice/user@1000.service/k3s-rootless.service/kubepods/besteffort/pod${UID}/${C}`,
    ],
    ["OpenShift", `0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${SLICE}.slice/crio-${C}.scope`],
    [
      "a custom root",
      `0::/custom.slice/custom-kubepods.slice/custom-kubepods-besteffort.slice/custom-kubepods-besteffort-pod${SLICE}.slice/cri-containerd-${C}.scope`,
    ],
  ])("%s", (_, line) => {
    const ancestors = new Set([D]);
    expect(cgroupOwner(`${line}\n`, ancestors)).toEqual({ podUid: UID, containerId: C });
  });

  test("v1: one line per hierarchy, some of them without a pod", () => {
    const text = [
      `12:memory:/kubepods/burstable/pod${UID}/${C}`,
      `11:net_cls,net_prio:/kubepods/burstable/pod${UID}/${C}`,
      "10:rdma:/",
      `1:name=systemd:/kubepods/burstable/pod${UID}/${C}`,
      "0::/system.slice/containerd.service",
      "",
    ].join("\n");
    expect(cgroupOwner(text, none)).toEqual({ podUid: UID, containerId: C });
  });

  test("a hybrid host, where only the unified hierarchy knows the pod", () => {
    expect(cgroupOwner(`4:memory:/\n0::/kubepods/besteffort/pod${UID}/${C}\n`, none)).toEqual({
      podUid: UID,
      containerId: C,
    });
  });

  test("a static pod: the hash of its configuration in place of the uid", () => {
    expect(cgroupOwner(`0::/kubepods/burstable/pod${HASH}/${C}`, none)).toEqual({ podUid: HASH, containerId: C });
    const slice = `0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${HASH}.slice/cri-containerd-${C}.scope`;
    expect(cgroupOwner(slice, none)).toEqual({ podUid: HASH, containerId: C });
  });

  test("CRI-O without a uid: the container alone", () => {
    expect(cgroupOwner(`0::/../crio-${C}.scope`, none)).toEqual({ podUid: undefined, containerId: C });
    expect(cgroupOwner(`5:cpu:/crio-${C}`, none)).toEqual({ podUid: undefined, containerId: C });
  });

  test("the pod's own cgroup and a runtime's helper in it: the pod without container", () => {
    expect(cgroupOwner(`0::/kubepods/besteffort/pod${UID}`, none)).toEqual({ podUid: UID, containerId: undefined });
    expect(cgroupOwner(`0::/kubepods/pod${UID}/kata_overhead`, none)).toEqual({ podUid: UID, containerId: undefined });
  });
});

describe("no owner", () => {
  test.each([
    ["a daemon", "0::/system.slice/kubelet.service"],
    ["the root", "0::/"],
    ["a kernel thread on v1", "12:memory:/\n0::/\n"],
    ["nothing", ""],
    ["no cgroup file", "garbage\nmore garbage"],
    ["two parts", `0:/kubepods/pod${UID}/${C}`],
    ["a relative path", `0::kubepods/pod${UID}/${C}`],
    ["a uid cut short", `0::/kubepods/pod${UID.slice(0, -1)}/x`],
    ["a uid with a tail", `0::/kubepods/pod${UID}0/x`],
    ["the word without separator", `0::/kubepods/xpod${UID}/x`],
    ["upper case, which kubelet never writes", `0::/kubepods/pod${UID.toUpperCase()}/x`],
    ["an id of the wrong length", `0::/docker/${C.slice(1)}`],
  ])("%s", (_, text) => {
    expect(cgroupOwner(text, none)).toBeUndefined();
  });

  test("hierarchies that name different pods or containers", () => {
    expect(cgroupOwner(`2:cpu:/kubepods/pod${UID}/${C}\n1:memory:/kubepods/pod${OTHER}/${C}`, none)).toBeUndefined();
    expect(cgroupOwner(`2:cpu:/kubepods/pod${UID}/${C}\n1:memory:/kubepods/pod${UID}/${D}`, none)).toBeUndefined();
  });
});

describe("nesting", () => {
  test("a container cannot pass for another pod by naming a cgroup below its own", () => {
    const forged = `0::/kubepods/besteffort/pod${UID}/${C}/kubepods/pod${OTHER}/${D}`;
    expect(cgroupOwner(forged, none)).toEqual({ podUid: UID, containerId: C });
    expect(cgroupOwner(`0::/crio-${C}.scope/crio-${D}.scope`, none)?.containerId).toBe(C);
  });

  test("a node that lives in a pod: that pod and its container are everyone's ancestors", () => {
    const outer = `/kubepods/burstable/pod${OTHER}/${D}`;
    const ancestors = cgroupAncestors(`0::${outer}/init.scope\n`);
    expect(ancestors).toEqual(new Set([OTHER, D]));
    expect(cgroupOwner(`0::${outer}/kubelet/kubepods/besteffort/pod${UID}/${C}`, ancestors)).toEqual({
      podUid: UID,
      containerId: C,
    });
    expect(cgroupOwner(`0::${outer}/system.slice/kubelet.service`, ancestors)).toBeUndefined();
  });

  test("an ordinary node has no ancestors", () => {
    expect(cgroupAncestors("12:memory:/\n0::/init.scope\n")).toEqual(new Set());
  });
});

test("a hostile cgroup file is read in bounded time", () => {
  const long = `0::/${"pod".repeat(20_000)}${"0123456789abcdef-".repeat(2000)}`;
  const started = performance.now();
  expect(cgroupOwner(long, none)).toBeUndefined();
  expect(performance.now() - started).toBeLessThan(1000);
});
