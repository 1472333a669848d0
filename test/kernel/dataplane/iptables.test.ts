// SPDX-License-Identifier: Apache-2.0
// The chains of the iptables engine among the pod's own: changed behind our back they are named and
// repaired, and whatever is not ours stays as it was.
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { NodeDataplane } from "../../../src/dataplane/dataplane.ts";
import { IptablesEngine } from "../../../src/dataplane/iptables/engine.ts";
import { native } from "../../../src/native/load.ts";
import { forkCount, run } from "../../../src/sys/exec.ts";
import { quiet, specOf, startDataplane, withoutSysctls } from "../../support/lab-dataplane.ts";
import { IPTABLES_LEGACY, IPTABLES_NFT, type LabEngine } from "../../support/lab-engines.ts";
import { Call, EchoServer, outcome } from "../../support/lab-peer.ts";
import { enrolByUpstream } from "../../support/lab-upstream.ts";
import { LabZtunnel } from "../../support/lab-ztunnel.ts";
import { inNetns, ipOf, NetnsLab } from "../../support/netns-lab.ts";

const APP = 8080;
const SERVICE = 80;

let lab: NetnsLab;
let ztunnel: LabZtunnel;
const servers: EchoServer[] = [];

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

const inPod = (script: string) => inNetns(lab.pod.netns, "sh", "-ec", script);
const variantOf = ({ name }: LabEngine) => (name === "iptables-legacy" ? "legacy" : "nft");

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

/**
 * Rules of both families as this variant's iptables-save shows them, without counters, and without the
 * list of tables that were made: it is lost with the state rule.
 */
async function saved(variant: string): Promise<string> {
  const all = await inPod(`iptables-${variant}-save; ip6tables-${variant}-save`);
  return all.replaceAll(/^#.*\n/gm, "").replaceAll(/\[\d+:\d+\]|made=\w*/g, "");
}

describe.each([IPTABLES_NFT, IPTABLES_LEGACY])("$name", (engine) => {
  const variant = variantOf(engine);
  let dataplane: NodeDataplane;
  const capture = () => dataplane.capture(lab.pod.netns, specOf(lab));
  const observe = () => dataplane.observe(lab.pod.netns, specOf(lab));

  beforeAll(async () => {
    dataplane = await startDataplane(native(), engine);
  });
  afterAll(() => dataplane.close());

  test.each([
    ["iptables -t nat -F AMBIENT_CNI_OUT", "chain AMBIENT_CNI_OUT of iptables nat is empty"],
    ["ip6tables -t nat -F AMBIENT_CNI_PRE", "chain AMBIENT_CNI_PRE of ip6tables nat is empty"],
    ["iptables -t nat -F", "chain OUTPUT of iptables nat does not lead to AMBIENT_CNI_OUT"],
    [
      "iptables -t nat -D OUTPUT -m comment --comment ambient-cni -j AMBIENT_CNI_OUT",
      "chain OUTPUT of iptables nat does not lead to AMBIENT_CNI_OUT",
    ],
    ["iptables -t nat -D AMBIENT_CNI_OUT 2", "rule local of chain AMBIENT_CNI_OUT of iptables nat is missing"],
    [
      "iptables -t nat -I AMBIENT_CNI_OUT -j ACCEPT",
      'chain AMBIENT_CNI_OUT of iptables nat has a rule that is not ours: ""',
    ],
    [
      "ip6tables -t nat -R AMBIENT_CNI_PRE 3 -i lo -p tcp -m comment --comment loopback -j RETURN",
      "rule loopback of chain AMBIENT_CNI_PRE of ip6tables nat was changed",
    ],
    [
      "iptables -t nat -I OUTPUT -j ACCEPT",
      "chain OUTPUT of iptables nat has rules before the one that leads to AMBIENT_CNI_OUT",
    ],
    [
      "iptables -t nat -A OUTPUT -m comment --comment ambient-cni -j AMBIENT_CNI_OUT",
      "chain OUTPUT of iptables nat leads to AMBIENT_CNI_OUT 2 times",
    ],
    [
      "iptables -t nat -R OUTPUT 1 -p udp -m comment --comment ambient-cni -j AMBIENT_CNI_OUT",
      "the rule of chain OUTPUT of iptables nat that leads to AMBIENT_CNI_OUT was changed",
    ],
    [
      "ip6tables -t filter -N OWN; ip6tables -t filter -A OWN -j AMBIENT_CNI_IN",
      'chain "OWN" of ip6tables filter leads to AMBIENT_CNI_IN',
    ],
    ["ip6tables -t mangle -N AMBIENT_CNI_EXTRA", "chain AMBIENT_CNI_EXTRA of ip6tables mangle is not planned"],
    ["iptables -t raw -F AMBIENT_CNI_STATE", "the rule that says what our chains are is missing"],
    ["iptables -t raw -F; iptables -t raw -X", "the rule that says what our chains are is missing"],
    ["ip6tables -t filter -F; ip6tables -t filter -X", "chain AMBIENT_CNI_IN of ip6tables filter is missing"],
  ])("%s: named, repaired, and nothing of ours twice", async (command, sentence) => {
    await capture();
    const before = await saved(variant);
    await inPod(command.replaceAll(/\b(ip6?tables) -t/g, `$1-${variant} -t`));
    const seen = observe();
    expect(seen.mode).toBe("differs");
    expect(seen.differences).toContain(sentence);
    await capture();
    expect(observe().mode).toBe("captured");
    const ours = (text: string) => text.split("\n").filter((line) => line.includes("AMBIENT_CNI_"));
    expect(ours(await saved(variant)).sort()).toEqual(ours(before).sort());
    for (const call of await openAll()) call.close();
    // A pod's own rule stays, and decides what ours leaves to it.
    expect(ztunnel.accepted).toHaveLength(4);
  });

  test("a successor without memory tells right rules from wrong ones, without a fork", async () => {
    await capture();
    const successor = await startDataplane(native(), engine);
    const forks = forkCount();
    expect(successor.observe(lab.pod.netns, specOf(lab)).mode).toBe("captured");
    expect(forkCount()).toBe(forks);
    await inPod(`iptables-${variant} -t nat -R AMBIENT_CNI_PRE 3 -i lo -p tcp -m comment --comment loopback -j RETURN`);
    expect(successor.observe(lab.pod.netns, specOf(lab)).differences).toEqual(["a rule was changed in place"]);
    await successor.release(lab.pod.netns);
    expect(successor.present(lab.pod.netns)).toBe(false);
    successor.close();
  });

  test("rules of the pod's own are never touched, and stay in force behind ours", async () => {
    await inPod(`
      for ipt in iptables-${variant} ip6tables-${variant}; do
        $ipt -t nat -N OWN; $ipt -t nat -A OWN -p tcp -j RETURN; $ipt -t nat -A OUTPUT -j OWN
        $ipt -t filter -P FORWARD DROP; $ipt -t filter -A INPUT -p tcp --dport 9999 -j REJECT
        $ipt -t raw -A PREROUTING -p udp -j RETURN
      done`);
    const before = await saved(variant);
    await capture();
    await dataplane.drain(lab.pod.netns, specOf(lab));
    await capture();
    for (const call of await openAll()) call.close();
    expect(ztunnel.accepted).toHaveLength(4);
    await dataplane.release(lab.pod.netns);
    const nonempty = (text: string) => text.split("\n").filter((line) => /^(-A|:\S+ (-|DROP))/.test(line));
    expect(nonempty(await saved(variant))).toEqual(nonempty(before));
  });

  test("removal finds jumps that somebody has changed, too", async () => {
    await capture();
    await inPod(`
      iptables-${variant} -t nat -R OUTPUT 1 -p udp -m comment --comment ambient-cni -j AMBIENT_CNI_OUT
      iptables-${variant} -t filter -N OWN; iptables-${variant} -t filter -A OWN -j AMBIENT_CNI_IN`);
    await dataplane.release(lab.pod.netns);
    expect(await saved(variant)).not.toContain("AMBIENT_CNI");
    expect(await saved(variant)).toContain("OWN");
  });

  test("the variant that is in a pod stays the pod's, whatever is preferred", async () => {
    await capture();
    const other = await startDataplane(native(), engine === IPTABLES_NFT ? IPTABLES_LEGACY : IPTABLES_NFT);
    expect(other.observe(lab.pod.netns, specOf(lab)).mode).toBe("captured");
    await other.capture(lab.pod.netns, specOf(lab, { dnsCapture: false }));
    expect(await saved(variant)).toContain("AMBIENT_CNI_");
    expect(await saved(variant === "nft" ? "legacy" : "nft")).not.toContain("AMBIENT_CNI_");
    other.close();
  });

  test("a pod with upstream's chains gets ours by the same variant", async () => {
    await enrolByUpstream(lab.pod.netns, `iptables-${variant}` as "iptables-nft");
    const other = await startDataplane(native(), engine === IPTABLES_NFT ? IPTABLES_LEGACY : IPTABLES_NFT);
    await other.capture(lab.pod.netns, specOf(lab));
    expect(await saved(variant)).toContain("AMBIENT_CNI_");
    expect(await saved(variant)).not.toContain("ISTIO_");
    expect(await saved(variant === "nft" ? "legacy" : "nft")).not.toContain("AMBIENT_CNI_");
    other.close();
  });

  test("rules in both variants are seen, and one of them goes", async () => {
    await capture();
    const text = await inPod(`iptables-${variant}-save -t nat`);
    const other = variant === "nft" ? "legacy" : "nft";
    await run([`iptables-${other}-restore`, "--noflush"], { stdin: text, netns: lab.pod.netns.fd, timeoutMs: 5000 });
    expect(observe().differences).toEqual(["rules of ours are in legacy tables and in those of iptables-nft"]);
    await capture();
    expect(observe().mode).toBe("captured");
    await dataplane.release(lab.pod.netns);
    for (const one of ["nft", "legacy"]) expect(await saved(one)).not.toContain("AMBIENT_CNI_");
  });

  test("retired: open connections live, nothing is steered, nothing refused; then it can go", async () => {
    const [own] = engine.make(native(), quiet);
    if (own === undefined) throw new Error("no engine was made");
    await own.selfTest();
    await capture();
    const calls = await openAll();
    await own.retire(lab.pod.netns, specOf(lab));
    expect(own.observe(lab.pod.netns, specOf(lab)).mode).toBe("draining");
    for (const call of calls) expect(await call.echo("retired")).toBe("retired");
    for (const call of await openAll()) call.close();
    expect(ztunnel.accepted).toHaveLength(4);
    // Answered by ztunnel itself, which closes: another engine decides about such calls now.
    expect(await outcome(Call.open(lab.pod.netns, 4, lab.pod.ipv4, 15006))).not.toBe("ECONNREFUSED");
    const sockets = native().sockets(lab.pod.netns.fd, { protocol: "tcp", states: [1] });
    expect(own.keepsAlive(sockets.filter(({ mark }) => mark === 0x539))).toBeGreaterThanOrEqual(4);
    for (const call of calls) call.close();
    await own.remove(lab.pod.netns);
    expect(own.present(lab.pod.netns)).toBe(false);
    own.close();
  });

  test("with IPv6 not captured, ztunnel's own ports are refused in it all the same", async () => {
    await dataplane.capture(lab.pod.netns, specOf(lab, { ipv6: false }));
    expect(await outcome(Call.open(lab.client.netns, 6, lab.pod.ipv6, 15001))).toBe("ECONNREFUSED");
    expect(await outcome(Call.open(lab.client.netns, 6, lab.pod.ipv6, APP))).toBe("app");
    expect(ztunnel.accepted).toEqual([]);
  });

  test("looking at a pod makes no table", async () => {
    expect(observe().mode).toBe("absent");
    expect(dataplane.present(lab.pod.netns)).toBe(false);
    expect(await inPod("cat /proc/net/ip_tables_names /proc/net/ip6_tables_names; nft list tables")).toBe("");
  });

  test("where sysctls are denied, a listener with an SO_MARK of its own is reached", async () => {
    const denied = await startDataplane(withoutSysctls, engine);
    const marked = { family: 6, bind: { address: "::", port: 8081 }, mark: 0x77 } as const;
    servers.push(await EchoServer.start(lab.pod.netns, "marked", marked));
    await denied.capture(lab.pod.netns, specOf(lab));
    for (const family of [4, 6] as const) {
      const call = await Call.open(lab.client.netns, family, ipOf(lab.pod, family), 8081);
      const { name, remote } = await call.greeting();
      expect({ name, from: remote.address }).toEqual({ name: "marked", from: ipOf(lab.client, family) });
      call.close();
    }
    denied.close();
  });
});

test("a chain whose name is made to look like an option never reaches iptables-restore", async () => {
  await inPod("nft add table ip nat; nft add chain ip nat AMBIENT_CNI_OUT");
  const name = "a".repeat(40);
  await inPod(`nft add chain ip nat ${name}; nft add rule ip nat ${name} jump AMBIENT_CNI_OUT`);
  const dataplane = await startDataplane(native(), IPTABLES_NFT);
  await expect(dataplane.capture(lab.pod.netns, specOf(lab))).rejects.toMatchObject({
    code: "IPTABLES_FAILED",
    message: expect.stringContaining(name),
  });
  dataplane.close();
});

describe("without a variant asked for", () => {
  const self = (binding = native()) => new IptablesEngine(binding, quiet, { variant: undefined });

  test("one that works is found, and said to work", async () => {
    const engine = self();
    expect(await engine.selfTest()).toMatchObject({ engine: "iptables", works: true, reason: undefined });
    engine.close();
  });

  test("a pod's own variant that does not work is an obstacle, and named", async () => {
    await inPod("iptables-legacy -t mangle -N ISTIO_PRERT");
    const start = join(import.meta.dirname, "../../support/lab-obstacle.ts");
    const prelude = 'mount --bind /bin/false "$(readlink -f "$(command -v iptables-legacy)")"';
    const command = `${prelude} && cd '${process.cwd()}' && exec '${process.execPath}' --import tsx '${start}'`;
    const { stdout } = await run(["unshare", "--mount", "sh", "-c", command], {
      timeoutMs: 20_000,
      netns: lab.pod.netns.fd,
    });
    expect(JSON.parse(stdout)).toMatch(/rules of iptables-legacy, which does not work on this node/);
  });

  test("without any iptables there is no engine, and the reason names both", async () => {
    const start = join(import.meta.dirname, "../../support/lab-start.ts");
    const command = `mount -t tmpfs none /usr/sbin && cd '${process.cwd()}' && exec '${process.execPath}' --import tsx '${start}' iptables-nft`;
    const { stdout } = await run(["unshare", "--mount", "sh", "-c", command], { timeoutMs: 20_000 });
    expect(JSON.parse(stdout)).toMatchObject({
      code: "NO_ENGINE",
      message: expect.stringMatching(/iptables-nft: iptables-nft-restore can't be started/),
    });
  });
});
