// SPDX-License-Identifier: Apache-2.0
// Pods with a branch ENI of AWS: routing as the AWS VPC CNI lays it out, one table per VLAN.
import { afterEach, beforeEach, expect, test } from "vitest";
import { BranchEni } from "../../../src/dataplane/branch-eni.ts";
import { native } from "../../../src/native/load.ts";
import { createNetns, type HeldNetns } from "../../../src/native/netns.ts";
import { type Fault, Faults } from "../../support/faulty-binding.ts";
import { quiet } from "../../support/lab-dataplane.ts";
import { inNetns } from "../../support/netns-lab.ts";

let host: HeldNetns;
let pods: HeldNetns;

beforeEach(async () => {
  host = createNetns();
  pods = createNetns();
  native().sysctlSet(host.fd, "net/ipv4/tcp_early_demux", "0");
  const family = (ip: string) => (ip.includes(":") ? "-6" : "-4");
  const lines: string[] = [];
  for (const [veth, table, ips] of [
    ["vlan1111", 101, ["10.0.0.11", "fd00::11"]],
    ["vlan2222", 102, ["10.0.0.22"]],
  ] as const) {
    native().vethAdd(host.fd, veth, `pod-${veth}`, pods.fd);
    native().linkUp(host.fd, veth);
    for (const ip of ips) {
      lines.push(`ip ${family(ip)} route add ${ip} dev ${veth} table ${table}`);
      lines.push(`ip ${family(ip)} rule add iif ${veth} lookup ${table} pref 10`);
    }
  }
  // An ordinary pod of the AWS CNI has a rule of the same priority, into the main table.
  lines.push("ip rule add to 10.0.0.33 lookup main pref 512");
  await inNetns(host, "sh", "-ec", lines.join("\n"));
});
afterEach(() => {
  host.close();
  pods.close();
});

const make = () => new BranchEni(native(), host, quiet);
const rules = async () => (await inNetns(host, "sh", "-c", "ip rule; ip -6 rule")).replaceAll(/[ \t]+/g, " ");

test("two rules per address of a branch ENI pod, none for another; removed with it", async () => {
  const before = await rules();
  const eni = make();
  for (const ip of ["10.0.0.11", "fd00::11", "10.0.0.33", "10.0.0.99"]) eni.add(ip);
  const during = await rules();
  expect(during).toContain("512: from all to 10.0.0.11 lookup 101");
  expect(during).toContain("9: from all iif vlan1111 lookup local");
  expect(during).toContain("512: from all to fd00::11 lookup 101");
  expect(during.split("\n")).toHaveLength(before.split("\n").length + 4);
  for (const ip of ["10.0.0.11", "fd00::11", "10.0.0.33", "10.0.0.99"]) eni.remove(ip);
  expect(await rules()).toBe(before);
});

test("adding twice is adding once", async () => {
  const eni = make();
  eni.add("10.0.0.11");
  const once = await rules();
  eni.add("10.0.0.11");
  make().add("10.0.0.11");
  expect(await rules()).toBe(once);
});

test("a successor finds and removes the rules of pods that are gone, also after the AWS CNI's own", async () => {
  const before = await rules();
  make().add("10.0.0.11");
  make().add("10.0.0.22");
  const successor = make();
  successor.reconcile(["10.0.0.22"]);
  expect(await rules()).not.toContain("10.0.0.11");
  expect(await rules()).toContain("512: from all to 10.0.0.22 lookup 102");
  expect(await rules()).toContain("9: from all iif vlan2222 lookup local");
  expect(await rules()).not.toContain("iif vlan1111 lookup local");
  // The pod's veth is gone, and with it the route; the AWS CNI has removed its rule.
  native().linkDelete(host.fd, "vlan2222");
  native().ruleDelete(host.fd, { family: 4, priority: 10, table: 102, iif: "vlan2222" });
  successor.reconcile([]);
  expect(await rules()).toBe(before.replace("10: from all iif vlan2222 lookup 102\n", ""));
});

test("with early demux on nothing is needed and nothing is added", async () => {
  native().sysctlSet(host.fd, "net/ipv4/tcp_early_demux", "1");
  const before = await rules();
  make().add("10.0.0.11");
  expect(await rules()).toBe(before);
});

test.each<Fault>(["killed", "refused"])("whatever write is %s, the next agent leaves all or nothing", async (fault) => {
  const before = await rules();
  make().add("10.0.0.11");
  const during = await rules();
  const faults = new Faults();
  const faulty = new BranchEni(faults.binding(), host, quiet);
  for (const [wanted, change, given] of [
    [during, () => faulty.add("10.0.0.11"), () => make().remove("10.0.0.11")],
    [before, () => faulty.remove("10.0.0.11"), () => make().add("10.0.0.11")],
  ] as const) {
    for (let writes = 0, unmade: string | undefined = ""; unmade !== undefined; writes++) {
      given();
      unmade = await faults.during(fault, writes, async () => change());
      make().reconcile(wanted === during ? ["10.0.0.11"] : []);
      expect(await rules()).toBe(wanted);
    }
  }
});
