// SPDX-License-Identifier: Apache-2.0
import { existsSync, mkdirSync, rmSync, symlinkSync } from "node:fs";
import { expect, test } from "vitest";
import { KNOBS, SCHEMA } from "../../../src/dataplane/ebpf/node.ts";
import type { BpfPod } from "../../../src/native/bpf.ts";
import { native } from "../../../src/native/load.ts";
import { guardFds } from "../../support/fds.ts";
import { labBpffs } from "../../support/lab-bpf.ts";

guardFds();

const POD: BpfPod = {
  ip4: "10.1.2.3",
  ip6: "",
  shadow4: "255.0.0.7",
  shadow6: "",
  probe4: "169.254.7.127",
  probe6: "fd16:9254:7127:1337:ffff:ffff:ffff:ffff",
  ipv6: false,
  inbound: true,
  dns: true,
  dnsListed: false,
  draining: true,
  retiring: false,
  beside: false,
  sysctls: "amrs",
  plan: "0123456789abcdef",
};

test("pods that an agent has pinned are read without it, and nothing is made by looking", () => {
  const addon = native();
  const dir = `${labBpffs()}/pinned/v1`;
  expect(addon.bpfPinned(dir)).toEqual([]);
  expect(existsSync(dir)).toBe(false);

  const node = addon.bpfOpen(dir, KNOBS);
  expect(addon.bpfPinned(dir)).toEqual([]);
  node.podWrite(41n, { ...POD, locals: [], nameservers: [], excludes: [] });
  node.podWrite(42n, { ...POD, ip4: "10.1.2.4", draining: false, locals: [], nameservers: [], excludes: [] });
  const { generation } = node;
  // Their agent has ended.
  node.close();
  const pods = addon.bpfPinned(dir).sort((a, b) => Number(a.cookie - b.cookie));
  expect(pods).toMatchObject([
    { cookie: 41n, ...POD },
    { cookie: 42n, ...POD, ip4: "10.1.2.4", draining: false },
  ]);
  for (const { counters } of pods) {
    expect(Object.keys(counters).length).toBeGreaterThan(5);
    expect(Object.values(counters).every((count) => count === 0)).toBe(true);
  }
  expect(addon.bpfVersions(KNOBS)).toEqual({
    libbpf: expect.stringMatching(/^v\d+\.\d+$/),
    schema: SCHEMA,
    generation,
  });

  // What lies there in the layout of another version is not read as if it were of this one.
  const other = `${labBpffs()}/pinned/v2`;
  mkdirSync(`${other}/maps`, { recursive: true });
  symlinkSync(`${dir}/maps/addresses`, `${other}/maps/pods`);
  expect(() => addon.bpfPinned(other)).toThrow(/another layout/);
  rmSync(`${other}/maps/pods`);
  addon.bpfRemove(`${labBpffs()}/pinned`);
});
