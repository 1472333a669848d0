// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { parseMountinfo } from "../../../src/sys/mountinfo.ts";
import { placeAmong } from "../../../src/sys/place-on-node.ts";

/** `device root point` a line. */
const mounts = (...lines: readonly string[]) =>
  parseMountinfo(lines.map((line, id) => `${id} 0 ${line} rw - ext4 /dev/x rw`).join("\n"));

const K3S = "/var/lib/rancher/k3s/agent/etc/cni/net.d";
const CONTAINER = mounts("0:50 / /", `8:1 ${K3S} /host/etc/cni/net.d`, "0:22 /istio-cni /var/run/istio-cni");

test.each<[string, readonly string[], string, string | undefined]>([
  ["a directory of the node's disk", ["8:1 / /"], "/host/etc/cni/net.d", K3S],
  ["what lies below it", ["8:1 / /"], "/host/etc/cni/net.d/a/b", `${K3S}/a/b`],
  ["on a file system of the node's", ["8:1 / /", "0:22 / /run"], "/var/run/istio-cni", "/run/istio-cni"],
  ["of a subvolume", ["8:1 /var/lib /mnt/lib"], "/host/etc/cni/net.d", "/mnt/lib/rancher/k3s/agent/etc/cni/net.d"],
  ["mounted there by the node too", ["8:1 / /", `8:1 ${K3S} /etc/cni/net.d`], "/host/etc/cni/net.d", "/etc/cni/net.d"],
  ["that the node has hidden", ["8:1 / /", "8:9 / /var/lib"], "/host/etc/cni/net.d", undefined],
  ["of a name that only begins alike", ["8:1 /var/lib/ran /mnt"], "/host/etc/cni/net.d", undefined],
  ["of the container alone", ["8:1 / /"], "/opt/cni/bin", undefined],
])("%s", (_, node, path, place) => {
  expect(placeAmong(CONTAINER, mounts(...node), path)).toBe(place);
});

test("of several mounts at one point the last one is seen", () => {
  const node = mounts("8:1 / /", "0:30 / /etc", "8:1 /other /etc");
  expect(placeAmong(mounts("8:1 /other/cni /host/x"), node, "/host/x")).toBe("/etc/cni");
  expect(placeAmong(mounts("0:50 / /", "8:1 /etc/cni /host/x"), node, "/host/x")).toBeUndefined();
});

test("on the node itself a path is where it is", () => {
  const own = mounts("8:1 / /", "0:22 / /run");
  expect(placeAmong(own, own, "/etc/cni/net.d")).toBe("/etc/cni/net.d");
  expect(placeAmong(own, own, "/run/istio-cni")).toBe("/run/istio-cni");
});
