// SPDX-License-Identifier: Apache-2.0
// Flows of real connections as readers of the agent's stream see them: with names and reasons, under load, by
// readers that are many, slow or gone, and after the agent's death.
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { expect, test } from "vitest";
import { AgentClient } from "../../src/cli/source/agent-client.ts";
import { AgentSource } from "../../src/cli/source/agent-source.ts";
import { type FlowLine, type FlowRecord, parseFlowLine } from "../../src/core/flow/line.ts";
import type { InspectReport } from "../../src/core/report/inspect.ts";
import type { PodsReport } from "../../src/core/report/pods.ts";
import type { TraceReport } from "../../src/core/report/trace.ts";
import type { SocketInfo } from "../../src/native/binding.ts";
import { native } from "../../src/native/load.ts";
import { openNetns } from "../../src/native/netns.ts";
import { ipOf } from "../../src/sandbox/pod-records.ts";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import { until } from "../../src/sandbox/until.ts";
import { inPod, onNode } from "../support/cli.ts";
import { Call } from "../support/lab-peer.ts";
import { appOf, httpUrl, LABEL, PROGRAM, REDIRECTION, withSandbox, workload } from "../support/sandbox.ts";

const FLOOD = 2000;
const AT_ONCE = 32;
const READERS = 10;
/** Of one CPU, for a thousand connections a second and ten readers. */
const CPU_MAX = 0.5;

/** All states of a socket that has a peer. In TIME_WAIT ztunnel's own leg is left, as of any connection. */
const CONNECTED = [1, 2, 3, 4, 5, 8, 9, 11];
const isTraced = ({ srcPort, dstPort }: SocketInfo): boolean => srcPort === 9090 || dstPort === 9090;

/** A reader of the agent's stream, in this process. */
class Reader {
  readonly lines: FlowLine[] = [];
  readonly #controller = new AbortController();
  readonly ended: Promise<string>;

  constructor(sandbox: Sandbox) {
    this.ended = this.#read(new AgentSource(new AgentClient(socketOf(sandbox), 5000)));
  }

  async #read(source: AgentSource): Promise<string> {
    try {
      for await (const line of source.flows(0, this.#controller.signal)) this.lines.push(line);
      return "stopped";
    } catch (error) {
      return String(error);
    }
  }

  get flows(): FlowRecord[] {
    return this.lines.filter((line) => line.type === "flow");
  }

  stop(): Promise<string> {
    this.#controller.abort();
    return this.ended;
  }
}

const socketOf = ({ node }: Sandbox): string => node.path("run/istio-cni/ambient-cni.sock");

/** pod, direction, verdict, reason, other end. */
const said = ({ pod, direction, verdict, reason, destinationPort, peer }: FlowRecord): string =>
  `${pod} ${direction} ${verdict} ${reason} ${destinationPort} ${peer}`;

/** Seconds of CPU that the agent has used. */
function cpuOf(sandbox: Sandbox): number {
  const stat = readFileSync(`/proc/${sandbox.agent?.leafPid()}/stat`, "utf8");
  const [user = 0, system = 0] = stat.slice(stat.lastIndexOf(")")).split(" ").slice(12, 14).map(Number);
  return (user + system) / 100;
}

/** Told and lost flows from outside to the server's echo port. */
function accounted(lines: readonly FlowLine[]): { readonly told: number; readonly lost: number } {
  let told = 0;
  let lost = 0;
  for (const line of lines) {
    if (line.type === "flow" && line.reason === "inbound") told += 1;
    if (line.type === "lost") lost += line.events;
  }
  return { told, lost };
}

test("monitor", async () => {
  await withSandbox({}, async (sandbox) => {
    // The outsider is nobody that ztunnel knows: it is called in plain text.
    sandbox.describeMesh(
      ["client", "server"].map((name, index) => workload("shop", name, index)),
      [],
    );
    for (const name of ["shop", "other"]) sandbox.api.put({ kind: "Namespace", metadata: { name } });
    sandbox.label("shop", LABEL, "ambient");
    await sandbox.startAgent();
    sandbox.startZtunnel();
    await sandbox.ztunnelsConnected(1);
    const client = await sandbox.kubelet.run({ namespace: "shop", name: "client" });
    const server = await sandbox.kubelet.run({ namespace: "shop", name: "server" });
    const outsider = await sandbox.kubelet.run({ namespace: "other", name: "outsider" });
    await until("both are enrolled", () =>
      ["client", "server"].every((name) => sandbox.annotation("shop", name, REDIRECTION) === "enabled"),
    );
    const { pods } = JSON.parse((await onNode(sandbox, "pods", "-o", "json")).stdout) as PodsReport;
    const uid = pods.find(({ name }) => name === "server")?.uid ?? "";
    const arrived = async (): Promise<number> => {
      const { stdout } = await onNode(sandbox, "inspect", uid, "-o", "json");
      return (JSON.parse(stdout) as InspectReport).counters.inbound_captured ?? 0;
    };

    // Each verdict, by a real connection, with the pod it is of and who the other end is.
    const reader = new Reader(sandbox);
    await until("the stream has begun", () => reader.lines.length > 0);
    expect(reader.lines[0]).toMatchObject({ type: "head", node: "node1", engines: { ebpf: 2 } });
    expect((await appOf(client).fetch(httpUrl(server))).server).toBe("server");
    expect((await appOf(outsider).fetch(httpUrl(server, 6))).server).toBe("server");
    const call = ["bash", "-c", `exec 3<>/dev/tcp/${ipOf(server, 4)}/8080`];
    await sandbox.node.spawn(call, { cgroup: `${sandbox.node.cgroups.root}/system/init` }).exited;
    expect((await appOf(client).fetch(httpUrl(client))).server).toBe("client");
    await expect(appOf(client).fetch(`http://${ipOf(client, 4)}:15001/`)).rejects.toThrow();
    const wanted = [
      "shop/client out ztunnel outbound 8080 shop/server",
      "shop/client out ztunnel by-ztunnel 15008 shop/server",
      "shop/server in ztunnel hbone 15008 shop/client",
      "shop/server in ztunnel inbound 8080 other/outsider",
      "shop/server in passed host 8080 null",
      "shop/client out passed local 8080 shop/client",
      "shop/client out refused own-port 15001 shop/client",
    ];
    const untold = (): string[] => {
      const seen = reader.flows.map(said);
      return wanted.filter((line) => !seen.includes(line));
    };
    await expect
      .poll(untold, { timeout: 5000 })
      .toEqual([])
      .catch((error: unknown) => {
        throw new Error(`${String(error)}\n${reader.flows.map(said).join("\n")}`);
      });

    // The command, on the node and in the pod, from what the agent keeps.
    const table = await onNode(sandbox, "monitor", "--last", "1000", "--pod", "shop/client", "--reason-is-no-option");
    expect(table.status).toBe(2);
    const refused = await onNode(sandbox, "monitor", "--last", "1000", "--verdict", "own-port", "--limit", "1");
    expect(refused.stdout).toMatch(
      /^\d\d:\d\d:\d\d\.\d{3} out tcp refused own-port {4}shop\/client > \S+:15001 \(shop\/client\) {2}ztunnel's own ports take/,
    );
    expect(refused).toMatchObject({ status: 0, stderr: expect.stringMatching(/^1 of \d+ flows shown, 0 lost\n$/) });
    const within = await inPod(sandbox, "monitor", "--last", "1000", "--direction", "in", "--limit", "2", "-o", "json");
    expect(
      within.stdout
        .trimEnd()
        .split("\n")
        .map((line) => parseFlowLine(line).type),
    ).toEqual(["head", "flow", "flow"]);
    const command = sandbox.node.spawn([process.execPath, PROGRAM, "monitor", "-o", "json"]);
    let complaint = "";
    command.process.stderr?.on("data", (chunk: Buffer) => {
      complaint += chunk.toString();
    });
    await once(command.process.stdout ?? command.process, "data");
    process.kill(command.leafPid(), "SIGINT");
    expect(await command.exited).toMatchObject({ code: 0 });
    expect(complaint).toMatch(/^\d+ of \d+ flows shown, 0 lost\n$/);

    // One connection, made for the purpose: to ztunnel and on, past it, refused; and nothing is left of it.
    const traced = await onNode(sandbox, "trace", "shop/client", "outsider:9090");
    expect(traced, traced.stdout + traced.stderr).toMatchObject({ status: 0, stderr: "" });
    const [title, ...hops] = traced.stdout.trimEnd().split("\n");
    expect(title).toBe(`shop/client > ${ipOf(outsider, 4)}:9090`);
    expect(hops.map((line) => line.replaceAll(/ +[\d.]+ ms +/g, ": "))).toEqual([
      "  √ decision: ztunnel (outbound): to ztunnel's 15001",
      expect.stringMatching(/^ {2}√ connect: connected, from 10\.66\.0\.\d+:\d+$/),
      `  √ answer: by ztunnel at port 15001; the application is shown ${ipOf(outsider, 4)}:9090 as its peer`,
      `  √ onward: ztunnel calls in plain text ${ipOf(outsider, 4)}:9090`,
      "  √ end: reset; no socket is left",
      "handed to ztunnel",
    ]);
    const traces: readonly [string, string, string, RegExp][] = [
      ["client", "client:8080", "passed", /^passed \(local\)/],
      ["client", `[${ipOf(client, 6)}]:15001`, "refused", /^refused \(own-port\)/],
      ["outsider", "server:8080", "passed", /^the pod is not captured: /],
      ["client", "server:8080", "ztunnel", /^ztunnel \(outbound\)/],
    ];
    for (const [from, to, verdict, decision] of traces) {
      const { stdout } = await onNode(sandbox, "trace", from, to, "-o", "json");
      const trace = JSON.parse(stdout) as TraceReport;
      expect(trace, stdout).toMatchObject({ verdict, problem: null });
      expect(trace.hops[0]?.text).toMatch(decision);
    }
    using netns = openNetns(`/proc/${client.child.leafPid()}/ns/net`);
    const left = () => native().sockets(netns.fd, { protocol: "tcp", states: CONNECTED }).filter(isTraced).length;
    await expect.poll(left).toBe(0);

    // Ten readers, and one that never reads.
    const readers = Array.from({ length: READERS - 1 }, () => new Reader(sandbox));
    const idle = await idleReader(sandbox);
    await until("all have begun", () => readers.every(({ lines }) => lines.length > 0));
    for (const one of [reader, ...readers]) one.lines.length = 0;
    const [before, cpuBefore, began] = [await arrived(), cpuOf(sandbox), performance.now()];
    await flood(`/proc/${outsider.child.leafPid()}/ns/net`, ipOf(server, 4));
    const seconds = (performance.now() - began) / 1000;
    const cpu = (cpuOf(sandbox) - cpuBefore) / seconds;
    expect((await arrived()) - before).toBe(FLOOD);
    await until("all is told or lost", () =>
      [reader, ...readers].every((one) => {
        const { told, lost } = accounted(one.lines);
        return told + lost >= FLOOD;
      }),
    );
    for (const one of [reader, ...readers]) expect(accounted(one.lines)).toEqual({ told: FLOOD, lost: 0 });
    console.log(
      `${Math.round(FLOOD / seconds)} connections/s, ${READERS} readers: ${(cpu * 100).toFixed(0)} % of a CPU`,
    );
    expect(cpu).toBeLessThan(CPU_MAX);
    expect((await onNode(sandbox, "status", "--brief")).status).toBe(0);
    idle.destroy();

    // The agent dies: its readers learn it, and a new agent is read like the one before.
    await sandbox.endAgent("SIGKILL");
    expect(await reader.ended).toMatch(/hangs up/);
    const alone = await onNode(sandbox, "monitor");
    expect(alone).toMatchObject({ status: 3, stdout: "" });
    await sandbox.startAgent();
    const next = new Reader(sandbox);
    await until("the new agent streams", () => next.lines.length > 0);
    expect((await appOf(outsider).fetch(httpUrl(server))).server).toBe("server");
    await until("and tells flows", () =>
      next.flows.map(said).includes("shop/server in ztunnel inbound 8080 other/outsider"),
    );
    expect(await next.stop()).toBe("stopped");
  });
});

/** Sends a request, and reads nothing of the answer. */
async function idleReader(sandbox: Sandbox): Promise<Socket> {
  const socket = connect(socketOf(sandbox));
  socket.on("error", () => undefined);
  socket.pause();
  await new Promise<void>((resolve) => socket.write("GET /v1/monitor HTTP/1.1\r\nHost: x\r\n\r\n", () => resolve()));
  return socket;
}

/** Connections from outside the mesh; each is answered by the server. */
async function flood(netnsPath: string, address: string): Promise<void> {
  using netns = openNetns(netnsPath);
  let left = FLOOD;
  const one = async (): Promise<void> => {
    while (left-- > 0) {
      const call = await Call.open(netns, 4, address, 9090);
      expect(JSON.parse(await call.line())).toMatchObject({ server: "server" });
      call.close();
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, one));
}
