// SPDX-License-Identifier: Apache-2.0
// The table of the nftables engine, changed behind our back: named by whoever has read its text, seen by
// everybody, and repaired.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { POD_TABLE } from "../../../src/core/constants.ts";
import type { NodeDataplane } from "../../../src/dataplane/dataplane.ts";
import { forkCount } from "../../../src/sys/exec.ts";
import { specOf, startDataplane } from "../../support/lab-dataplane.ts";
import { Call, EchoServer } from "../../support/lab-peer.ts";
import { LabZtunnel } from "../../support/lab-ztunnel.ts";
import { inNetns, ipOf, NetnsLab } from "../../support/netns-lab.ts";

const APP = 8080;
const SERVICE = 80;

let dataplane: NodeDataplane;
let lab: NetnsLab;
let ztunnel: LabZtunnel;
const servers: EchoServer[] = [];

beforeAll(async () => {
  dataplane = await startDataplane();
});
afterAll(() => dataplane.close());

beforeEach(async () => {
  lab = NetnsLab.create();
  ztunnel = await LabZtunnel.start(lab.pod.netns);
  servers.push(
    await EchoServer.start(lab.pod.netns, "app", { family: 6, bind: { address: "::", port: APP } }),
    await EchoServer.start(lab.client.netns, "remote", { family: 6, bind: { address: "::", port: SERVICE } }),
  );
});
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
  await ztunnel.close();
  lab.close();
});

/** One proxied connection per direction and family. */
async function openAll(): Promise<Call[]> {
  const calls: Call[] = [];
  for (const family of [4, 6] as const) {
    calls.push(await Call.open(lab.client.netns, family, ipOf(lab.pod, family), APP));
    calls.push(await Call.open(lab.pod.netns, family, ipOf(lab.client, family), SERVICE));
  }
  for (const call of calls) await call.greeting();
  return calls;
}

test("a successor without memory tells a right table from a wrong one, without a fork", async () => {
  await dataplane.capture(lab.pod.netns, specOf(lab));
  const successor = await startDataplane();
  const forks = forkCount();
  expect(successor.observe(lab.pod.netns, specOf(lab)).mode).toBe("captured");
  expect(forkCount()).toBe(forks);
  const changed = "nft -a list chain inet ambient-cni nat-prerouting | sed -n 's/.*\"inbound\" # handle //p'";
  await inNetns(
    lab.pod.netns,
    "sh",
    "-c",
    `nft replace rule inet ambient-cni nat-prerouting handle $(${changed}) 'fib daddr type local meta l4proto tcp tcp dport 1 counter redirect to :15006 comment "inbound"'`,
  );
  expect(successor.observe(lab.pod.netns, specOf(lab))).toEqual({
    mode: "differs",
    engine: "nftables",
    differences: ["a rule was changed in place"],
  });
  // One that has read the text itself can name it.
  expect(dataplane.observe(lab.pod.netns, specOf(lab)).differences).toEqual([
    "rule inbound of chain nat-prerouting was changed",
  ]);
  successor.close();
});

describe("what is changed behind our back is named and repaired", () => {
  const handleOf = (chain: string, name: string) =>
    `$(nft -a list chain inet ${POD_TABLE} ${chain} | sed -n 's/.*"${name}" # handle //p')`;
  test.each([
    ["nft delete table inet ambient-cni", undefined],
    ["nft flush table inet ambient-cni", "chain nat-output is empty"],
    ["nft flush chain inet ambient-cni nat-output", "chain nat-output is empty"],
    [
      `nft delete rule inet ambient-cni nat-output handle ${handleOf("nat-output", "dns-udp")}`,
      "rule dns-udp of chain nat-output is missing",
    ],
    ["nft insert rule inet ambient-cni nat-output accept", 'chain nat-output has a rule that is not ours: ""'],
    ["nft add table inet ambient-cni '{ flags dormant; }'", "the table is dormant: none of its rules is in force"],
    ["nft chain inet ambient-cni nat-output '{ policy drop; }'", "chain nat-output drops what no rule decides"],
    ["nft add chain inet ambient-cni extra", 'chain "extra" is not ours'],
  ])("%s", async (command, sentence) => {
    await dataplane.capture(lab.pod.netns, specOf(lab));
    await inNetns(lab.pod.netns, "sh", "-c", command);
    const seen = dataplane.observe(lab.pod.netns, specOf(lab));
    expect(seen.mode).toBe(sentence === undefined ? "absent" : "differs");
    if (sentence !== undefined) expect(seen.differences).toContain(sentence);
    await dataplane.capture(lab.pod.netns, specOf(lab));
    expect(dataplane.observe(lab.pod.netns, specOf(lab)).mode).toBe("captured");
    for (const call of await openAll()) call.close();
    expect(ztunnel.accepted).toHaveLength(4);
  });
});
