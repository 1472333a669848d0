// SPDX-License-Identifier: Apache-2.0
// A pod's netns whose path leads nowhere in the agent's container: the plugin hands it over.
import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, readdirSync, readlinkSync, statSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { NetnsHandover } from "../../../src/cniserver/handover.ts";
import { CniServer } from "../../../src/cniserver/server.ts";
import { AgentError } from "../../../src/core/errors.ts";
import type { CniPodRequest, CniVerdict } from "../../../src/core/ports/cni.ts";
import type { SeqpacketConnection } from "../../../src/native/binding.ts";
import { native } from "../../../src/native/load.ts";
import { createNetns, type HeldNetns } from "../../../src/native/netns.ts";
import { HandedNetnsFinder } from "../../../src/netns/handed.ts";
import { type PluginRun, POD_ENV, runPlugin } from "../../support/cni-plugin.ts";
import { FakeAgent } from "../../support/fake-agent.ts";
import { LogRecorder, MetricRecorder } from "../../support/recorder.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

const CONTAINER = POD_ENV.CNI_CONTAINERID ?? "";
const finder = new HandedNetnsFinder(new AgentError("PROC_UNREADABLE", "no proc is mounted", "mount it"));

let dir: ScratchDir;
let pods: HeldNetns;
let handover: NetnsHandover;
let server: CniServer;
let metrics: MetricRecorder;
const requests: CniPodRequest[] = [];
/** Identities of the netns that ADDs have got. */
const got: string[] = [];
let work: (request: CniPodRequest) => Promise<CniVerdict>;

/** Namespaces that this process holds. */
const heldNetns = () =>
  readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith("net:");
    } catch {
      return false;
    }
  }).length;
let heldBefore = 0;

beforeEach(async () => {
  dir = new ScratchDir();
  pods = createNetns();
  requests.length = 0;
  got.length = 0;
  work = async (request) => {
    using netns = finder.open(request.netns, request.takeNetns?.());
    got.push(netns.id);
    return "sidecar";
  };
  const logger = new LogRecorder();
  handover = new NetnsHandover({ runDir: dir.path, binding: native(), logger });
  handover.listen();
  const add = (request: CniPodRequest) => {
    requests.push(request);
    return work(request);
  };
  const handler = {
    add,
    check: async (request: CniPodRequest) => {
      await add(request);
    },
  };
  metrics = new MetricRecorder();
  server = new CniServer({ runDir: dir.path, handler, handover, logger, metrics });
  await server.listen();
  heldBefore = heldNetns();
});
afterEach(async () => {
  await expect.poll(heldNetns).toBe(heldBefore);
  await server.stop();
  handover.stop();
  pods.close();
  dir[Symbol.dispose]();
});

const PREVIOUS = { cniVersion: "1.1.0", ips: [{ address: "10.0.0.2/24" }] };
/** The plugin runs on the node, where the path of this process's fd leads to the netns. */
const run = (
  netns: string,
  command = "ADD",
  env: Record<string, string> = {},
  more: object = {},
): Promise<PluginRun> => {
  const conf = { cniVersion: "1.1.0", name: "k8s", type: "istio-cni", cni_agent_run_dir: dir.path, ...more };
  return runPlugin(command, JSON.stringify({ ...conf, prevResult: PREVIOUS }), { ...env, CNI_NETNS: netns });
};
const podsPath = () => `/proc/${process.pid}/fd/${pods.fd}`;

test.each(["ADD", "CHECK"])(
  "%s: asked by its path first, then with the netns itself, which is the pod's",
  async (command) => {
    expect(await run(podsPath(), command)).toMatchObject({ status: 0, stderr: "" });
    expect(got).toEqual([pods.id]);
    expect(requests.map(({ netns, containerId }) => [netns, containerId])).toEqual([
      [podsPath(), CONTAINER],
      [podsPath(), CONTAINER],
    ]);
    const results = [...metrics.counts.keys()].flatMap((key) => /"result":"(\w+)"/.exec(key)?.[1] ?? []);
    expect(results, "the first is no failure").toEqual(["handover", "ok"]);
  },
);

test("many at once get each their own", async () => {
  const all = Array.from({ length: 20 }, (_, at) => ({ id: `container-${at}`, netns: createNetns() }));
  const seen = new Map<string, string>();
  work = async (request) => {
    using netns = finder.open(request.netns, request.takeNetns?.());
    seen.set(request.containerId, netns.id);
    return "sidecar";
  };
  const runs = await Promise.all(
    all.map(({ id, netns }) => run(`/proc/${process.pid}/fd/${netns.fd}`, "ADD", { CNI_CONTAINERID: id })),
  );
  expect(runs.map(({ status }) => status)).toEqual(all.map(() => 0));
  expect(seen).toEqual(new Map(all.map(({ id, netns }) => [id, netns.id])));
  for (const { netns } of all) netns.close();
});

test.each([
  ["the node's own", () => "/proc/self/ns/net", "network namespace of the node itself"],
  ["another kind of namespace", () => "/proc/self/ns/mnt", "is no network namespace"],
  ["a file", () => "/etc/hostname", "is no network namespace"],
  ["nothing", () => "/var/run/netns/gone", "can't be opened: No such file or directory"],
])("%s is refused, with code 104, and nothing is done", async (_, path, words) => {
  const { status, stdout } = await run(path());
  expect(JSON.parse(stdout)).toMatchObject({ code: 104, msg: expect.stringContaining(words) });
  expect(status).toBe(1);
  expect(got).toEqual([]);
});

test("a FIFO in its place does not hold the plugin up", async () => {
  const fifo = dir.file("fifo");
  execFileSync("mkfifo", [fifo]);
  const { stdout } = await run(fifo);
  expect(JSON.parse(stdout)).toMatchObject({ code: 104 });
});

test("an error of the second try is the answer", async () => {
  work = async (request) => {
    using netns = finder.open(request.netns, request.takeNetns?.());
    throw new AgentError("NO_ENGINE", `nothing works in ${netns.id}`);
  };
  expect(JSON.parse((await run(podsPath())).stdout)).toMatchObject({
    code: 106,
    msg: `nothing works in ${pods.id} (NO_ENGINE)`,
  });
  expect(requests).toHaveLength(2);
});

test("an agent that never looks at what it got is asked twice, not for ever", async () => {
  work = async () => {
    throw new AgentError("NETNS_UNREADABLE", "no");
  };
  expect(JSON.parse((await run(podsPath())).stdout)).toMatchObject({ code: 104 });
  expect(requests).toHaveLength(2);
});

test.each([
  ["ends", "No such file or directory"],
  ["is killed", "Connection refused"],
])(
  "the agent %s between the two: the pod is tried again, also where ambient is off, and a CHECK says nothing",
  async (how, why) => {
    handover.stop();
    if (how === "is killed")
      native()
        .seqpacketListen(dir.file("netns.sock"), 0o600, () => ({ packet() {}, end() {} }))
        .close();
    const { status, stdout } = await run(podsPath(), "ADD", {}, { ambient_enabled: false });
    expect(status).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({
      code: 11,
      msg: expect.stringMatching(`does not take the pod's network namespace at .*netns\\.sock: ${why}`),
    });
    expect((await run(podsPath(), "CHECK")).status).toBe(0);
  },
);

test("a successor that is not ready yet gets the second request: the pod is tried again all the same", async () => {
  work = async ({ takeNetns }) => {
    if (takeNetns === undefined) throw new AgentError("NETNS_UNREADABLE", "no");
    throw new AgentError("AGENT_STARTING", "reading the cluster");
  };
  const { status, stdout } = await run(podsPath(), "ADD", {}, { ambient_enabled: false });
  expect([status, JSON.parse(stdout)]).toMatchObject([1, { code: 11, msg: "reading the cluster (AGENT_STARTING)" }]);
});

test("an agent that doesn't know of this prints its own error, as before", async () => {
  await server.stop();
  await using _ = await FakeAgent.http(dir.file("pluginevent.sock"), (response) => {
    response.statusCode = 500;
    response.end('{"code":104,"msg":"the netns is not there"}');
  });
  expect(JSON.parse((await run(podsPath())).stdout)).toMatchObject({ code: 104, msg: "the netns is not there" });
});

describe("the socket", () => {
  const socket = () => dir.file("netns.sock");

  /** Connects, sends one packet, and resolves with what was answered until the end. */
  async function said(message: string, fd?: number): Promise<string[]> {
    const answers: string[] = [];
    await new Promise<void>((resolve) => {
      const connection: SeqpacketConnection = native().seqpacketConnect(socket(), {
        packet: (answer) => {
          answers.push(answer.toString());
        },
        end: () => resolve(),
      });
      connection.send(Buffer.from(message), fd);
    });
    return answers;
  }

  test("is root's, and replaces what a former run left", () => {
    expect(statSync(socket()).mode & 0o777).toBe(0o600);
    const before = statSync(socket()).ino;
    const next = new NetnsHandover({ runDir: dir.path, binding: native(), logger: new LogRecorder() });
    next.listen();
    const { ino } = statSync(socket());
    expect(ino).not.toBe(before);
    expect(existsSync(dir.file(".netns"))).toBe(false);
    // Who ends leaves its successor's, and takes its own along.
    handover.stop();
    expect(statSync(socket()).ino).toBe(ino);
    next.stop();
    expect(existsSync(socket())).toBe(false);
  });

  test("a file in its place is left, and named", () => {
    const other = new ScratchDir();
    writeFileSync(other.file("netns.sock"), "");
    chmodSync(other.path, 0o755);
    const second = new NetnsHandover({ runDir: other.path, binding: native(), logger: new LogRecorder() });
    expect(() => second.listen()).toThrow(/netns\.sock is a file, not a socket/);
    other[Symbol.dispose]();
  });

  test("what is not a container's id with two namespaces is refused, and nothing stays open", async () => {
    expect(await said(CONTAINER)).toEqual(["two namespaces are expected"]);
    expect(await said(CONTAINER, pods.fd)).toEqual(["two namespaces are expected"]);
    expect(await said("../x", pods.fd)).toEqual(["the packet is not the id of a container"]);
    expect(await said("x".repeat(4097), pods.fd)).toEqual([expect.stringContaining("one packet from root")]);
    expect(handover.take(CONTAINER)).toBeUndefined();
  });
});
