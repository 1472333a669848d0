// SPDX-License-Identifier: Apache-2.0
// The host's side of probes: who wears the probe address, who owns an element, what survives others.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Clock, systemClock } from "../../../src/core/clock.ts";
import { HOST_TABLE, PROBE_SNAT_IPV4, PROBE_SNAT_IPV6 } from "../../../src/core/constants.ts";
import { SnatExemption, type SnatOptions } from "../../../src/dataplane/probe-exemption/snat.ts";
import { native } from "../../../src/native/load.ts";
import { createNetns, type HeldNetns } from "../../../src/native/netns.ts";
import { forkCount } from "../../../src/sys/exec.ts";
import { DriftLedger } from "../../../src/telemetry/drift-ledger.ts";
import { noMetrics, quiet, specOf, startDataplane } from "../../support/lab-dataplane.ts";
import { Call, EchoServer, outcome } from "../../support/lab-peer.ts";
import { LabZtunnel } from "../../support/lab-ztunnel.ts";
import { inNetns, ipOf, NetnsLab } from "../../support/netns-lab.ts";

const UID = "0f0e0d0c-0000-4000-8000-000000000001";
const OTHER = "0f0e0d0c-0000-4000-8000-000000000002";
const started: SnatExemption[] = [];
let procDir: string;

beforeEach(() => {
  procDir = mkdtempSync(join(tmpdir(), "lab-proc-"));
});
afterEach(async () => {
  for (const exemption of started.splice(0)) await exemption.stop();
  rmSync(procDir, { recursive: true });
});

function make(
  host: HeldNetns,
  changes: Partial<SnatOptions["config"]> = {},
  others: Partial<SnatOptions> = {},
): SnatExemption {
  const exemption = new SnatExemption({
    binding: native(),
    logger: quiet,
    drift: new DriftLedger(noMetrics),
    host,
    config: {
      probeSources: "host",
      probeIpv4: PROBE_SNAT_IPV4,
      probeIpv6: PROBE_SNAT_IPV6,
      awsBranchEni: false,
      procDir,
      ...changes,
    },
    ...others,
  });
  started.push(exemption);
  return exemption;
}

/** Address and owner of every element, sorted. */
function elements(host: HeldNetns): string[] {
  return ["pods-v4", "pods-v6"]
    .flatMap((set) => native().nftSet(host.fd, "inet", HOST_TABLE, set))
    .map(({ key, comment }) => `${key} ${comment}`)
    .sort();
}

function fakeProcess(pid: number, comm: string, uid: number, ...argv: string[]): void {
  const folder = join(procDir, String(pid));
  mkdirSync(folder);
  const fields = Array.from({ length: 40 }, () => "0");
  fields[19] = String(pid);
  writeFileSync(join(folder, "stat"), `${pid} (${comm}) ${fields.join(" ")}\n`);
  writeFileSync(join(folder, "cmdline"), argv.map((argument) => `${argument}\0`).join(""));
  writeFileSync(join(folder, "status"), `Name:\t${comm}\nUid:\t${uid}\t${uid}\t${uid}\t${uid}\n`);
}

describe("probes to a captured pod in a lab whose client is the node", () => {
  let lab: NetnsLab;
  let app: EchoServer;
  let ztunnel: LabZtunnel;
  let dataplane: Awaited<ReturnType<typeof startDataplane>>;

  beforeEach(async () => {
    lab = NetnsLab.create();
    app = await EchoServer.start(lab.pod.netns, "app", { family: 6, bind: { address: "::", port: 8080 } });
    ztunnel = await LabZtunnel.start(lab.pod.netns);
    dataplane = await startDataplane();
    await dataplane.capture(lab.pod.netns, specOf(lab));
  });
  afterEach(async () => {
    await app.close();
    await ztunnel.close();
    dataplane.close();
    lab.close();
  });

  test.each([4, 6] as const)(
    "IPv%i: from the node directly and as the probe address, until revoked",
    async (family) => {
      const podIp = ipOf(lab.pod, family);
      const probe = async () => {
        const call = await Call.open(lab.client.netns, family, podIp, 8080);
        const { remote } = await call.greeting();
        call.close();
        return remote.address;
      };
      const exemption = make(lab.client.netns);
      await exemption.start();
      expect(await probe()).toBe(ipOf(lab.client, family));
      expect(ztunnel.accepted).toHaveLength(1);
      await exemption.allow(UID, [lab.pod.ipv4, lab.pod.ipv6]);
      expect(await probe()).toBe(family === 4 ? PROBE_SNAT_IPV4 : PROBE_SNAT_IPV6);
      expect(ztunnel.accepted).toHaveLength(1);
      await exemption.revoke(UID, [lab.pod.ipv4, lab.pod.ipv6]);
      expect(await probe()).toBe(ipOf(lab.client, family));
      expect(ztunnel.accepted).toHaveLength(2);
    },
  );

  test("the probe address may be the node's own", async () => {
    const exemption = make(lab.client.netns, { probeIpv4: lab.client.ipv4, probeIpv6: lab.client.ipv6 });
    await exemption.start();
    await exemption.allow(UID, [lab.pod.ipv4]);
    const own = specOf(lab, { probeIpv4: lab.client.ipv4, probeIpv6: lab.client.ipv6 });
    await dataplane.capture(lab.pod.netns, own);
    expect(await outcome(Call.open(lab.client.netns, 4, lab.pod.ipv4, 8080))).toBe("app");
    expect(ztunnel.accepted).toEqual([]);
  });

  test("what another pod sends through the node is no probe", async () => {
    using neighbour = createNetns();
    native().vethAdd(lab.client.netns.fd, "veth1", "eth0", neighbour.fd);
    native().linkUp(lab.client.netns.fd, "veth1");
    native().linkUp(neighbour.fd, "eth0");
    native().addressAdd(lab.client.netns.fd, "veth1", "10.67.0.1", 24);
    native().addressAdd(neighbour.fd, "eth0", "10.67.0.2", 24);
    await inNetns(neighbour, "ip", "route", "add", "default", "via", "10.67.0.1");
    native().sysctlSet(lab.client.netns.fd, "net/ipv4/ip_forward", "1");
    const exemption = make(lab.client.netns);
    await exemption.start();
    await exemption.allow(UID, [lab.pod.ipv4]);
    const call = await Call.open(neighbour, 4, lab.pod.ipv4, 8080);
    expect((await call.greeting()).remote.address).toBe("10.67.0.2");
    call.close();
    expect(ztunnel.accepted).toHaveLength(1);
  });

  test("kubelet only: sockets of another uid go through ztunnel", async () => {
    fakeProcess(11, "kubelet", 0, "/usr/bin/kubelet");
    const exemption = make(lab.client.netns, { probeSources: "kubelet" });
    await exemption.start();
    await exemption.allow(UID, [lab.pod.ipv4]);
    expect(await outcome(Call.open(lab.client.netns, 4, lab.pod.ipv4, 8080))).toBe("app");
    expect(ztunnel.accepted).toEqual([]);
    const connect = "exec 3<>/dev/tcp/10.66.0.2/8080 && head -n1 <&3";
    const argv = ["setpriv", "--reuid=65534", "--clear-groups", "bash", "-c", connect];
    expect(await inNetns(lab.client.netns, ...argv)).toContain(`"address":"${lab.client.ipv4}"`);
    expect(ztunnel.accepted).toHaveLength(1);
  });
});

describe("ownership", () => {
  let host: HeldNetns;
  beforeEach(() => {
    host = createNetns();
  });
  afterEach(() => host.close());

  test("calls made together share one transaction, and repeated ones cost none", async () => {
    const exemption = make(host);
    await exemption.start();
    const forks = forkCount();
    const ips = Array.from({ length: 50 }, (_, i) => `10.0.0.${i + 1}`);
    await Promise.all(ips.map((ip, i) => exemption.allow(`uid-${i}`, [ip, `fd00::${i + 1}`])));
    expect(forkCount() - forks).toBe(1);
    expect(elements(host)).toHaveLength(100);
    await Promise.all(ips.map((ip, i) => exemption.allow(`uid-${i}`, [ip])));
    expect(forkCount() - forks).toBe(1);
  });

  test("a recycled address belongs to its new owner; the old one's revoke leaves it alone", async () => {
    const exemption = make(host);
    await exemption.start();
    await exemption.allow(UID, ["10.0.0.1", "fd00::1"]);
    await exemption.allow(OTHER, ["10.0.0.1"]);
    expect(elements(host)).toEqual([`10.0.0.1 ${OTHER}`, `fd00::1 ${UID}`]);
    await exemption.revoke(UID, ["10.0.0.1", "fd00::1"]);
    expect(elements(host)).toEqual([`10.0.0.1 ${OTHER}`]);
  });

  test("allowed and revoked within one batch it ends as last said", async () => {
    const exemption = make(host);
    await exemption.start();
    await Promise.all([
      exemption.allow(UID, ["10.0.0.1", "10.0.0.2"]),
      exemption.revoke(UID, ["10.0.0.1"]),
      exemption.allow(OTHER, ["10.0.0.2"]),
      exemption.revoke(UID, ["10.0.0.2"]),
    ]);
    expect(elements(host)).toEqual([`10.0.0.2 ${OTHER}`]);
  });

  test("a successor adopts what is there, and revokes what it never allowed", async () => {
    const first = make(host);
    await first.start();
    await first.allow(UID, ["10.0.0.1", "10.0.0.2"]);
    await first.stop();
    const second = make(host);
    await second.start();
    expect(elements(host)).toEqual([`10.0.0.1 ${UID}`, `10.0.0.2 ${UID}`]);
    await second.revoke(OTHER, ["10.0.0.1"]);
    await second.revoke(UID, ["10.0.0.2"]);
    expect(elements(host)).toEqual([`10.0.0.1 ${UID}`]);
  });

  test("reconcile removes what has no owner, corrects owners, adds what is missing", async () => {
    const exemption = make(host);
    await exemption.start();
    await exemption.allow(UID, ["10.0.0.1", "10.0.0.2", "fd00::1"]);
    const owners = new Map([
      [UID, ["10.0.0.1"]],
      [OTHER, ["10.0.0.2", "10.0.0.3"]],
    ]);
    await exemption.reconcile(owners);
    expect(elements(host)).toEqual([`10.0.0.1 ${UID}`, `10.0.0.2 ${OTHER}`, `10.0.0.3 ${OTHER}`]);
  });

  test.each([
    ["nft delete table inet ambient-cni-probes"],
    ["nft flush ruleset"],
    ["nft flush table inet ambient-cni-probes"],
    ["nft flush set inet ambient-cni-probes pods-v4"],
    ["nft 'delete element inet ambient-cni-probes pods-v4 { 10.0.0.1 }'"],
    ["nft insert rule inet ambient-cni-probes postrouting accept"],
  ])("another tool's `%s` is taken back at once", async (command) => {
    const exemption = make(host);
    await exemption.start();
    await exemption.allow(UID, ["10.0.0.1", "fd00::1"]);
    const before = await inNetns(host, "nft", "list", "ruleset");
    await inNetns(host, "sh", "-c", command);
    await expect.poll(() => inNetns(host, "nft", "list", "ruleset"), { timeout: 10_000 }).toBe(before);
  });

  test("another tool's own transactions cost us no fork", async () => {
    const exemption = make(host);
    await exemption.start();
    await exemption.allow(UID, ["10.0.0.1"]);
    await inNetns(host, "nft", "add", "table", "ip", "theirs");
    const forks = forkCount();
    await sleep(600);
    expect(forkCount()).toBe(forks);
  });

  test("other tables are never touched, and stop with removal leaves nothing of ours", async () => {
    await inNetns(
      host,
      "sh",
      "-c",
      "nft add table ip nat; nft add chain ip nat POSTROUTING '{ type nat hook postrouting priority 100; }'; nft add rule ip nat POSTROUTING masquerade",
    );
    const before = await inNetns(host, "nft", "list", "ruleset");
    const exemption = make(host);
    await exemption.start();
    await exemption.allow(UID, ["10.0.0.1"]);
    expect(await inNetns(host, "nft", "list", "ruleset")).toContain(before.trim());
    await exemption.bequeath([]);
    expect(await inNetns(host, "nft", "list", "ruleset")).toBe(before);
  });

  test("what is bequeathed is all that stays, for a time or for good, and a successor has it for good", async () => {
    const first = make(host);
    await first.start();
    await first.allow(UID, ["10.0.0.1", "10.0.0.9"]);
    await first.bequeath([
      { uid: UID, ips: ["10.0.0.1", "fd00::1"], engine: "nftables" },
      { uid: OTHER, ips: ["10.0.0.2", "fd00::2"], engine: "ebpf", seconds: 1 },
    ]);
    const all = [`10.0.0.1 ${UID}`, `10.0.0.2 ${OTHER}`, `fd00::1 ${UID}`, `fd00::2 ${OTHER}`];
    expect(elements(host)).toEqual(all);
    expect(await inNetns(host, "nft", "list", "table", "inet", HOST_TABLE)).toContain("snat ip to 169.254.7.127");
    // Nobody watches it any more.
    await inNetns(host, "nft", `delete element inet ${HOST_TABLE} pods-v4 { 10.0.0.1 }`);
    await expect.poll(() => elements(host), { timeout: 5000 }).toEqual([`fd00::1 ${UID}`]);

    await make(host).bequeath([{ uid: OTHER, ips: ["10.0.0.2"], engine: "ebpf", seconds: 1 }]);
    const second = make(host);
    await second.start();
    await sleep(1500);
    expect(elements(host)).toEqual([`10.0.0.2 ${OTHER}`]);
  });

  test("bad values are refused and name themselves", async () => {
    const exemption = make(host);
    await exemption.start();
    await expect(exemption.allow('x"; accept', ["10.0.0.1"])).rejects.toMatchObject({
      code: "BAD_UID",
      message: expect.stringContaining("accept"),
    });
    await expect(exemption.allow(UID, ["10.0.0.1 }"])).rejects.toMatchObject({ code: "BAD_ADDRESS" });
    expect(elements(host)).toEqual([]);
  });
});

describe("whose sockets", () => {
  let host: HeldNetns;
  beforeEach(() => {
    host = createNetns();
  });
  afterEach(() => host.close());
  const rules = () => inNetns(host, "nft", "list", "table", "inet", HOST_TABLE);

  test.each([
    ["kubelet", ["/usr/bin/kubelet", "--config=x"], 1000, "skuid 1000"],
    ["kubelite", ["/snap/microk8s/kubelite", "--kubelet-args-file=x"], 7, "skuid 7"],
    ["k3s", ["/usr/local/bin/k3s", "server"], 5, "skuid 5"],
    // Neither is kubelet: root is assumed, and said so.
    ["kubelite", ["/snap/other"], 7, "skuid 0"],
    ["bash", ["bash", "kubelet"], 7, "skuid 0"],
  ])("%s %j", async (comm, argv, uid, text) => {
    fakeProcess(10, "bash", 3, "bash");
    fakeProcess(11, comm, uid, ...argv);
    const exemption = make(host, { probeSources: "kubelet" });
    await exemption.start();
    expect(await rules()).toContain(`meta ${text} `);
  });
});

/** Looks that would be due in 200 ms or later are due at once; batches take as long as ever. */
const hasty: Clock = {
  now: systemClock.now,
  after: (ms, task) => systemClock.after(ms > 100 ? 1 : ms, task),
};

describe("looks between any two steps of allow and revoke", () => {
  const repairs: (string | undefined)[] = [];
  const drift = { repaired: (what: string) => repairs.push(what) };
  let looks: number;
  const counting = { ...native() };
  let host: HeldNetns;
  let exemption: SnatExemption;

  beforeEach(async () => {
    repairs.length = 0;
    looks = 0;
    counting.nftTable = (...given) => {
      looks += 1;
      return native().nftTable(...given);
    };
    host = createNetns();
    exemption = make(host, {}, { clock: hasty, drift, binding: counting });
    await exemption.start();
  });
  afterEach(() => host.close());

  test("see no drift while pods come and go, and while others commit", async () => {
    const pods = Array.from({ length: 12 }, (_, i) => ({ uid: `pod-${i}`, ips: [`10.1.0.${i}`, `fd01::${i + 1}`] }));
    const turns = 15;
    const before = looks;
    let done = false;
    const foreign = (async () => {
      while (!done) await inNetns(host, "sh", "-c", "nft add table ip other; nft delete table ip other");
    })();
    await Promise.all(
      pods.map(async ({ uid, ips }, i) => {
        for (let turn = 0; turn < turns; turn++) {
          await exemption.allow(uid, ips);
          await sleep((i * 7 + turn) % 5);
          // The next pod takes the address over before this one gives it back.
          if (turn % 3 === 0) await Promise.all([exemption.allow(`${uid}-next`, ips), exemption.revoke(uid, ips)]);
          await Promise.all([exemption.revoke(uid, ips), exemption.revoke(`${uid}-next`, ips)]);
          await sleep((i + turn) % 4);
        }
        await exemption.allow(uid, ips);
      }),
    );
    done = true;
    await foreign;
    expect(looks - before).toBeGreaterThan(turns * 4);
    expect(repairs).toEqual([]);
    expect(elements(host)).toEqual(pods.flatMap(({ uid, ips }) => ips.map((ip) => `${ip} ${uid}`)).sort());
  });

  test("still see what is lost of a pod that nobody is changing", async () => {
    await exemption.allow(UID, ["10.1.0.1"]);
    await inNetns(host, "nft", "flush", "set", "inet", HOST_TABLE, "pods-v4");
    await expect.poll(() => elements(host)).toEqual([`10.1.0.1 ${UID}`]);
    await expect.poll(() => repairs).toEqual(["probes"]);
  });
});
