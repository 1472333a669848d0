// SPDX-License-Identifier: Apache-2.0
// What people ask and do by hand on a node: plans of enrolments, and network namespaces captured without a pod.
import { expect, test } from "vitest";
import type { MetricsReport } from "../../src/core/report/lines.ts";
import { BRIDGE } from "../../src/sandbox/network.ts";
import { ipOf } from "../../src/sandbox/pod-records.ts";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import { until } from "../../src/sandbox/until.ts";
import { METRICS } from "../../src/telemetry/metric-table.ts";
import { inPod, onNode } from "../support/cli.ts";
import { ALERTS, PANELS, unknownIn } from "../support/monitoring.ts";
import { LABEL, PROGRAM, REDIRECTION, withSandbox, workload } from "../support/sandbox.ts";

const LAB = "/run/netns/lab";
const LAB_IP = "10.66.0.200";
const SERVED = `server, asked by ${LAB_IP}`;

/** A netns at the node's bridge that belongs to nobody. */
async function makeLab({ node }: Sandbox): Promise<void> {
  const script = [
    "ip netns add lab",
    "ip -n lab link set lo up",
    "ip link add lab0 type veth peer name eth0 netns lab",
    `ip link set lab0 master ${BRIDGE} up`,
    `ip -n lab addr add ${LAB_IP}/24 dev eth0`,
    "ip -n lab link set eth0 up",
    "ip -n lab route add default via 10.66.0.1",
  ];
  await node.run(["sh", "-ec", script.join("\n")], { timeoutMs: 10_000 });
}

/** Everything of the netns that a capture touches. */
async function stateOf({ node }: Sandbox, netns: string): Promise<string> {
  const inside = `nsenter --net=${netns}`;
  const sysctls = "net.ipv4.tcp_fwmark_accept net.ipv4.fwmark_reflect net.ipv4.conf.lo.accept_local";
  const script = [
    `${inside} ip rule; ${inside} ip -4 route show table all; ${inside} ip -6 rule; ${inside} ip -6 route show table 100`,
    `${inside} nft list ruleset; ${inside} tc filter show dev eth0 egress; ${inside} sysctl ${sysctls}`,
  ];
  return (await node.run(["sh", "-c", script.join(";")], { timeoutMs: 10_000 })).stdout;
}

/** One request from the netns: who answered, and what address it saw; or how it failed. */
async function fetchFrom({ node }: Sandbox, url: string): Promise<string> {
  const argv = ["nsenter", `--net=${LAB}`, "--", "curl", "-sS", "--max-time", "3", url];
  return node.run(argv, { timeoutMs: 10_000 }).then(
    ({ stdout }) => {
      const { server, clientSeen } = JSON.parse(stdout) as { server: string; clientSeen: string };
      return `${server}, asked by ${clientSeen.replace(/:\d+$/, "")}`;
    },
    (error: unknown) => `failed: ${String(error)}`,
  );
}

/** Metrics that the agent really has, with the labels of their samples; those without a sample yet as the table has them. */
async function scrape({ node }: Sandbox): Promise<ReadonlyMap<string, readonly string[]>> {
  const socket = node.path("run/istio-cni/ambient-cni.sock");
  const argv = ["curl", "-sS", "--unix-socket", socket, "http://localhost/v1/metrics"];
  const { text } = JSON.parse((await node.run(argv, { timeoutMs: 5000 })).stdout) as MetricsReport;
  const known = new Map<string, readonly string[]>();
  for (const [, name = ""] of text.matchAll(/^# TYPE (\w+) /gm)) {
    const [, sample] = new RegExp(`^${name}(?:_count)?\\{(.*)\\} `, "m").exec(text) ?? [];
    const labels = [...(sample ?? "").matchAll(/(\w+)="/g)].map(([, label = ""]) => label);
    known.set(name, sample === undefined ? (METRICS.find((row) => row.name === name)?.labels ?? []) : labels);
  }
  return known;
}

/** What a browser on the node shows of `ambient-cni ui`. */
async function browse({ node }: Sandbox): Promise<string> {
  const ui = node.spawn([process.execPath, PROGRAM, "ui"], { stdio: ["ignore", "pipe", "inherit"] });
  try {
    const url = await new Promise<string>((resolve) => {
      ui.process.stdout?.once("data", (chunk: Buffer) => resolve(chunk.toString().trim()));
    });
    const browser = ["chromium-headless-shell", "--headless", "--no-sandbox", "--virtual-time-budget=3000"];
    return (await node.run([...browser, "--dump-dom", url], { timeoutMs: 30_000 })).stdout;
  } finally {
    await ui.end(1000);
  }
}

test("plan says what would be done and does nothing; enroll captures a netns of nobody's", async () => {
  await withSandbox({ agentEnv: { AMBIENT_CNI_DRAIN_SECONDS: "1" } }, async (sandbox) => {
    sandbox.describeMesh(
      [workload("shop", "server", 0), workload("other", "plain", 1), { ...workload("shop", "lab", 2), ips: [LAB_IP] }],
      [],
    );
    for (const name of ["shop", "other"]) sandbox.api.put({ kind: "Namespace", metadata: { name } });
    sandbox.label("shop", LABEL, "ambient");
    await sandbox.startAgent();
    sandbox.startZtunnel();
    await sandbox.ztunnelsConnected(1);
    const server = await sandbox.kubelet.run({ namespace: "shop", name: "server" });
    const plain = await sandbox.kubelet.run({ namespace: "other", name: "plain", program: "sleep" });
    await until("the server is enrolled", () => sandbox.annotation("shop", "server", REDIRECTION) === "enabled");

    // Plans: of a pod that is out, of one that is captured, by every engine, twice the same.
    const before = await stateOf(sandbox, plain.attachment.netns);
    const out = await onNode(sandbox, "plan", "plain");
    expect(out, out.stderr).toMatchObject({ status: 0 });
    expect(out.stdout).toBe(
      "other/plain\n  because  not in the mesh: no enablement selector matches the pod and its namespace\n" +
        "  now      nothing: it is not in the mesh\n",
    );
    const written = {
      ebpf: /\n {4}TC ingress of eth0: ambient_arrive\n[\s\S]*\n {4}ip4 10\.66\.0\.3\n/,
      nftables: /\n {4}create table inet ambient-cni \{[\s\S]*redirect to :15001 comment "outbound"\n/,
      iptables: /\n {2}ip6tables-nft-restore --noflush --wait in the pod\n {4}\*raw\n/,
    };
    for (const [engine, expected] of Object.entries(written)) {
      const argv = ["plan", "plain", "--anyway", "--engine", engine];
      const first = await onNode(sandbox, ...argv);
      expect(first, first.stdout).toMatchObject({ status: 0, stderr: "" });
      expect(first.stdout).toMatch(expected);
      expect((await inPod(sandbox, ...argv)).stdout).toBe(first.stdout);
    }
    expect(await stateOf(sandbox, plain.attachment.netns)).toBe(before);
    const captured = await onNode(sandbox, "plan", "server");
    expect(captured.stdout).toMatch(/\n {2}now {6}nothing: captured by ebpf as it should be\n {2}engine {3}ebpf\n/);

    // By hand: where labels decide it is refused, and nothing has changed.
    await makeLab(sandbox);
    const clean = await stateOf(sandbox, LAB);
    const enroll = ["enroll", "--netns", LAB, "--ip", LAB_IP];
    const taken = await onNode(sandbox, "enroll", "--netns", plain.attachment.netns, "--ip", ipOf(plain, 4));
    expect(taken).toMatchObject({ status: 1, stdout: "" });
    expect(taken.stderr).toMatch(
      /is pod other\/plain's, and what decides about it keeps it out of the mesh: no enable/,
    );
    const meshed = await onNode(sandbox, "unenroll", "--netns", server.attachment.netns);
    expect(meshed.stderr).toMatch(/is pod shop\/server's, and what decides about it puts it in the mesh: /);
    const elsewhere = await onNode(sandbox, "enroll", "--netns", LAB, "--ip", "10.66.0.201");
    expect(elsewhere.stderr).toBe(`ambient-cni: no interface of ${LAB} has the address 10.66.0.201\n`);
    const host = await onNode(sandbox, "enroll", "--netns", "/proc/1/ns/net", "--ip", "10.66.0.1");
    expect(host.stderr).toMatch(/is the network namespace of the node itself/);
    const dry = await onNode(sandbox, ...enroll, "--dry-run");
    expect(dry.stdout).toMatch(/^manual-\d+\n {2}because {2}in the mesh: captured by hand: \/run\/netns\/lab\n/);
    expect(dry.stdout).toContain("\n3. capture\n  nft -f - in the pod\n");
    expect(await stateOf(sandbox, LAB)).toBe(clean);

    // Without a workload no ztunnel knows it: its connections are refused.
    const url = `http://${ipOf(server, 4)}:8080/`;
    expect(await fetchFrom(sandbox, url)).toBe(SERVED);
    const done = await onNode(sandbox, ...enroll);
    expect(done, done.stderr).toMatchObject({ status: 0, stderr: "" });
    expect(done.stdout).toMatch(
      /^prepare routes: .* ms\nexempt probes: .* ms\ncapture: .* ms\nmanual-\d+ is captured by nft/,
    );
    expect(await fetchFrom(sandbox, url)).toMatch(/^failed: .*curl: \(7\)/);
    expect((await onNode(sandbox, "pods")).stdout).toMatch(
      /^- +manual-\d+ +10\.66\.0\.200 +\d+ +manual +nftables +- +\d+s +captured by hand: \/run\/netns\/lab$/m,
    );
    expect(await onNode(sandbox, "inspect", LAB_IP, "--diff")).toMatchObject({ status: 0 });
    expect((await onNode(sandbox, "status")).stdout).toMatch(/^ {2}pods +OK +1 enrolled, 1 captured by hand, 2 not/m);
    expect((await onNode(sandbox, ...enroll)).stderr).toMatch(/is captured by hand already/);
    expect((await onNode(sandbox, "unenroll", "--netns", LAB, "--dry-run")).stdout).toBe(`${LAB}: would be released\n`);
    expect((await onNode(sandbox, "inspect", LAB_IP, "--diff")).status).toBe(0);
    const gone = await onNode(sandbox, "unenroll", "--netns", LAB);
    expect(gone).toMatchObject({ status: 0, stdout: `${LAB}: released: nothing of ours is left in it\n` });
    expect(await stateOf(sandbox, LAB)).toBe(clean);

    expect(await browse(sandbox)).toMatch(/id="ready" class="ok">ready</);
    const scraped = await scrape(sandbox);
    expect([...ALERTS, ...PANELS].flatMap(({ expr }) => unknownIn(expr, scraped))).toEqual([]);

    // As a workload of the mesh it is served, goes on while no agent is there, and is adopted by the next one.
    const served = await onNode(sandbox, ...enroll, "--workload", "shop/lab");
    expect(served.stdout, served.stderr).toMatch(/\nztunnel serves it\n$/);
    expect(await fetchFrom(sandbox, url)).toBe(SERVED);
    const verified = await onNode(sandbox, "verify", LAB_IP);
    expect(verified.stdout, verified.stdout).toMatch(/\nPASS manual-\d+: \d+ of \d+ proved/);
    await sandbox.endAgent("SIGKILL");
    expect(await fetchFrom(sandbox, url)).toBe(SERVED);
    await sandbox.startAgent();
    await sandbox.ztunnelsConnected(1);
    expect(await fetchFrom(sandbox, url)).toBe(SERVED);
    expect((await onNode(sandbox, "pods", LAB_IP)).stdout).toMatch(/ manual +nftables +acked /);
    const last = await onNode(sandbox, "unenroll", "--netns", LAB);
    expect(last.stdout, last.stderr).toMatch(/: (released|no new connection is captured)/);
    await until("nothing is left in it", async () => (await stateOf(sandbox, LAB)) === clean);
    expect(await fetchFrom(sandbox, url)).toBe(SERVED);
    expect(await onNode(sandbox, "unenroll", "--netns", LAB)).toMatchObject({
      status: 0,
      stdout: `${LAB}: nothing of ours is in it\n`,
    });
    await sandbox.endAgent("SIGKILL");
    const away = await browse(sandbox);
    expect(away).toMatch(/id="away">The agent is away: this is what the kernel shows. agent unreachable: ECONNREFUSED/);
    expect(away).toContain("<td>shop/server</td>");
    const alone = await onNode(sandbox, ...enroll);
    expect(alone).toMatchObject({ status: 3, stdout: "" });
  });
});
