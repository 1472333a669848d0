// SPDX-License-Identifier: Apache-2.0
// Nodes and pods where IPv6 is not captured: nobody is told that a pod is in the mesh when it isn't.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { NodeDataplane } from "../../../src/dataplane/dataplane.ts";
import { native } from "../../../src/native/load.ts";
import { specOf, startDataplane, stateOf } from "../../support/lab-dataplane.ts";
import { ENGINES } from "../../support/lab-engines.ts";
import { inNetns, NetnsLab } from "../../support/netns-lab.ts";

let dataplane: NodeDataplane;
let lab: NetnsLab;

describe.each(ENGINES)("$name", (engine) => {
  beforeAll(async () => {
    dataplane = await startDataplane(native(), engine);
  });
  afterAll(() => dataplane.close());
  beforeEach(() => {
    lab = NetnsLab.create();
  });
  afterEach(() => lab.close());

  const onlyV6 = (ipv6: boolean) => specOf(lab, { ips: [lab.pod.ipv6], ipv6 });

  test("a pod with IPv6 addresses only is captured where IPv6 is", async () => {
    native().addressDelete(lab.pod.netns.fd, "eth0", lab.pod.ipv4, 16);
    expect(await dataplane.capture(lab.pod.netns, onlyV6(true))).toBe(engine.engine);
  });

  test("AMBIENT_IPV6=false: a pod with IPv6 addresses only is refused, and left as it was", async () => {
    const before = await stateOf(lab.pod.netns);
    await expect(dataplane.capture(lab.pod.netns, onlyV6(false))).rejects.toMatchObject({
      code: "POD_NOT_CAPTURABLE",
      message: expect.stringMatching(/fd66::2\) are IPv6, which is not captured: AMBIENT_IPV6 is false on this node/),
    });
    expect(await stateOf(lab.pod.netns)).toBe(before);
  });

  test("IPv6 disabled on the pod's lo: so is one there, and told why", async () => {
    native().sysctlSet(lab.pod.netns.fd, "net/ipv6/conf/lo/disable_ipv6", "1");
    const before = await stateOf(lab.pod.netns);
    await expect(dataplane.capture(lab.pod.netns, onlyV6(true))).rejects.toMatchObject({
      code: "POD_NOT_CAPTURABLE",
      message: expect.stringMatching(/disable_ipv6 .* AMBIENT_IPV6/),
    });
    expect(await stateOf(lab.pod.netns)).toBe(before);
  });

  test("a dual-stack pod goes on being captured for IPv4 alone", async () => {
    const spec = specOf(lab, { ipv6: false });
    expect(await dataplane.capture(lab.pod.netns, spec)).toBe(engine.engine);
    expect(dataplane.observe(lab.pod.netns, spec).mode).toBe("captured");
  });

  test("a pod that another version took for captured is not", async () => {
    const dual = specOf(lab, { ipv6: false });
    await dataplane.capture(lab.pod.netns, dual);
    const seen = dataplane.observe(lab.pod.netns, onlyV6(false));
    expect(seen.mode).toBe("differs");
    expect(seen.differences).toContainEqual(expect.stringContaining("AMBIENT_IPV6 is false on this node"));
  });

  const routing6 = async () =>
    `${await inNetns(lab.pod.netns, "ip", "-6", "rule")}${await inNetns(lab.pod.netns, "ip", "-6", "route", "show", "table", "all")}`;
  const ours6 = /fwmark 0x111|table 100/;

  test("AMBIENT_IPV6 turned off: IPv6 routing of before is seen, named and removed, and comes back with it", async () => {
    await dataplane.capture(lab.pod.netns, specOf(lab));
    expect(await routing6()).toMatch(ours6);
    const off = specOf(lab, { ipv6: false });
    const seen = dataplane.observe(lab.pod.netns, off);
    expect(seen.mode).toBe("differs");
    expect(seen.differences).toContain("IPv6 is not captured, but its policy rule is there");
    await dataplane.capture(lab.pod.netns, off);
    expect(await routing6()).not.toMatch(ours6);
    expect(dataplane.observe(lab.pod.netns, off).mode).toBe("captured");
    await dataplane.capture(lab.pod.netns, specOf(lab));
    expect(await routing6()).toMatch(ours6);
    expect(dataplane.observe(lab.pod.netns, specOf(lab)).mode).toBe("captured");
  });

  test("the rule alone, left by an agent that was killed, is enough to be seen and removed", async () => {
    const off = specOf(lab, { ipv6: false });
    await dataplane.capture(lab.pod.netns, off);
    await inNetns(lab.pod.netns, "ip", "-6", "rule", "add", "fwmark", "0x111/0xfff", "lookup", "100", "pref", "32764");
    expect(dataplane.observe(lab.pod.netns, off).mode).toBe("differs");
    await dataplane.capture(lab.pod.netns, off);
    expect(await routing6()).not.toMatch(ours6);
  });

  test("IPv6 routing of upstream's istio-cni goes with its tables, once the pod is ours", async () => {
    await dataplane.capture(lab.pod.netns, specOf(lab));
    const table = "inet istio-ambient-nat";
    await inNetns(lab.pod.netns, "nft", `add table ${table}; add chain ${table} istio-output`);
    const off = specOf(lab, { ipv6: false });
    // The first pass makes the pod ours, the next one finds that nothing lives by theirs.
    for (let pass = 0; pass < 2; pass++) await dataplane.capture(lab.pod.netns, off);
    expect(dataplane.observe(lab.pod.netns, off).mode).toBe("captured");
    expect(await inNetns(lab.pod.netns, "nft", "list", "tables")).not.toContain("istio-ambient");
    expect(await routing6()).not.toMatch(ours6);
  });

  test("an IPv6 route of the pod's own in table 100 is not taken for ours", async () => {
    await inNetns(lab.pod.netns, "ip", "-6", "route", "add", "local", "::/0", "dev", "lo", "table", "100");
    const off = specOf(lab, { ipv6: false });
    await dataplane.capture(lab.pod.netns, off);
    expect(await routing6()).toContain("local default dev lo table 100");
    expect(dataplane.observe(lab.pod.netns, off).mode).toBe("captured");
  });
});
