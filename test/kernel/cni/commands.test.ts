// SPDX-License-Identifier: Apache-2.0
// Every command of every version of the spec, through the real binary.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { CniServer } from "../../../src/cniserver/server.ts";
import { AgentError } from "../../../src/core/errors.ts";
import type { CniPodRequest } from "../../../src/core/ports/cni.ts";
import { POD_ENV, pluginBinary, runPlugin } from "../../support/cni-plugin.ts";
import { FakeAgent } from "../../support/fake-agent.ts";
import { LogRecorder, MetricRecorder } from "../../support/recorder.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

const VERSIONS = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/** A result of the spec's form for the version, with spacing and escapes that no printer would choose. */
function previous(version: string): string {
  const family = (which: string) => (version.startsWith("0.") ? `"version" :"${which}", ` : "");
  return `{ "cniVersion":"${version}" ,
\t"interfaces":[{"name":"eth0","sandbox":"\\/var\\/run\\/netns\\/cni-1"}],"big":9007199254740993,
  "ips":[ {${family("4")}"address":"10.0.0.2/24","interface":0},{${family("6")}"address":"fd00:0:0::2/64"}],
  "dns":{"search":["a}]\\",\\u0022b"]}, "x":[[],{}],"n":-1.50e2 }`;
}

let dir: ScratchDir;
beforeEach(() => {
  dir = new ScratchDir();
});
afterEach(() => dir[Symbol.dispose]());

const agentSocket = () => dir.file("pluginevent.sock");
const conf = (version: string, prevResult: string | undefined, extra: Record<string, unknown> = {}) => {
  const own = { cniVersion: version, name: "k8s", type: "istio-cni", cni_agent_run_dir: dir.path, ...extra };
  const text = JSON.stringify(own);
  return prevResult === undefined ? text : `${text.slice(0, -1)},"prevResult" : ${prevResult} }`;
};

describe.each(VERSIONS)("spec %s", (version) => {
  it("ADD asks the agent and prints prevResult byte for byte", async () => {
    await using agent = await FakeAgent.http(agentSocket());
    const run = await runPlugin("ADD", conf(version, previous(version)));
    expect(run).toMatchObject({ status: 0, stdout: previous(version), stderr: "" });
    expect(agent.requests).toHaveLength(1);
    expect(agent.requests[0]).toMatchObject({ method: "POST", path: "/v1/add" });
    expect(JSON.parse(agent.requests[0]?.body ?? "")).toEqual({
      containerId: "8a1b2c3d",
      netns: "/var/run/netns/cni-1",
      ifName: "eth0",
      podNamespace: "shop",
      podName: "cart-0",
      podUid: "6f0c-1",
      ips: ["10.0.0.2", "fd00::2"],
      cniVersion: version,
    });
  });

  it("ADD without prevResult prints an empty result", async () => {
    await using agent = await FakeAgent.http(agentSocket());
    for (const prevResult of [undefined, "null"]) {
      const run = await runPlugin("ADD", conf(version, prevResult));
      expect(run).toMatchObject({ status: 0, stdout: `{"cniVersion":"${version}"}` });
    }
    expect(agent.requests.map(({ body }) => JSON.parse(body).ips)).toEqual([[], []]);
  });

  it("ADD prints the agent's error with its code, message and remedy", async () => {
    const error = { code: 107, msg: "no “such” annotation", details: "correct it" };
    await using _agent = await FakeAgent.http(agentSocket(), (response) => {
      response.statusCode = 500;
      response.end(JSON.stringify(error));
    });
    const run = await runPlugin("ADD", conf(version, previous(version)));
    expect(run.status).toBe(1);
    expect(JSON.parse(run.stdout)).toEqual({ cniVersion: version, ...error });
  });

  it("CHECK asks the agent, from 0.4.0 on", async () => {
    await using agent = await FakeAgent.http(agentSocket(), (response) => response.end('{"verdict":"ok"}'));
    const run = await runPlugin("CHECK", conf(version, previous(version)));
    if (version.startsWith("0.3.")) {
      expect(run.status).toBe(1);
      expect(JSON.parse(run.stdout)).toMatchObject({ cniVersion: version, code: 1 });
      expect(agent.requests).toEqual([]);
    } else {
      expect(run).toMatchObject({ status: 0, stdout: "" });
      expect(agent.requests[0]?.path).toBe("/v1/check");
    }
  });

  it("STATUS succeeds without agent, from 1.1.0 on", async () => {
    const run = await runPlugin("STATUS", conf(version, undefined), {
      CNI_CONTAINERID: undefined,
      CNI_NETNS: undefined,
      CNI_IFNAME: undefined,
      CNI_ARGS: undefined,
    });
    if (version === "1.1.0") expect(run).toMatchObject({ status: 0, stdout: "", stderr: "" });
    else expect(JSON.parse(run.stdout)).toMatchObject({ cniVersion: version, code: 1 });
  });

  it.each(["DEL", "GC"])("%s succeeds at once, prints nothing and asks nobody", async (command) => {
    await using agent = await FakeAgent.http(agentSocket());
    const run = await runPlugin(command, conf(version, previous(version)));
    expect(run).toMatchObject({ status: 0, stdout: "", stderr: "" });
    expect(run.milliseconds).toBeLessThan(1000);
    expect(agent.requests).toEqual([]);
  });
});

describe("VERSION", () => {
  it("needs no stdin and no agent", async () => {
    const run = await runPlugin("VERSION", undefined);
    expect(run.status).toBe(0);
    expect(JSON.parse(run.stdout)).toEqual({ cniVersion: "1.1.0", supportedVersions: VERSIONS });
  });
});

describe("a result of another version", () => {
  it.each([
    ["0.3.1", "0.4.0"],
    ["1.0.0", "1.1.0"],
    ["1.1.0", "1.0.0"],
  ])("%s under a configuration of %s is relabelled", async (from, to) => {
    await using _agent = await FakeAgent.http(agentSocket());
    const run = await runPlugin("ADD", conf(to, previous(from)));
    expect(run.status).toBe(0);
    expect(JSON.parse(run.stdout)).toEqual({ ...JSON.parse(previous(from)), cniVersion: to });
    expect(run.stdout).toContain("9007199254740993");
  });

  it.each([
    ["0.4.0", "1.0.0"],
    ["1.0.0", "0.3.1"],
    ["7.0.0", "1.0.0"],
  ])("%s under a configuration of %s is refused before the agent is asked", async (from, to) => {
    await using agent = await FakeAgent.http(agentSocket());
    const run = await runPlugin("ADD", conf(to, previous(from)));
    expect(JSON.parse(run.stdout)).toMatchObject({ code: 1, msg: expect.stringContaining(from) });
    expect(agent.requests).toEqual([]);
  });

  it("without a version of its own goes out as it is", async () => {
    await using _agent = await FakeAgent.http(agentSocket());
    const run = await runPlugin("ADD", conf("1.0.0", '{ "ips":[] }'));
    expect(run).toMatchObject({ status: 0, stdout: '{ "ips":[] }' });
  });

  it("is found under an escaped key, and the last of equal keys counts", async () => {
    await using _agent = await FakeAgent.http(agentSocket());
    const escaped = conf("1.0.0", '{ "a" : 1 }').replace('"prevResult"', '"prev\\u0052esult"');
    expect(JSON.parse((await runPlugin("ADD", escaped)).stdout)).toEqual({ a: 1 });
    const twice = conf("1.0.0", '{ "a" : 1 }').replace('{"cniVersion"', '{"prevResult":{"b":2},"cniVersion"');
    expect((await runPlugin("ADD", twice)).stdout).toBe('{ "a" : 1 }');
  });
});

describe("pods that are let through without asking", () => {
  it.each<[string, Record<string, string | undefined>, Record<string, unknown>]>([
    ["no CNI_ARGS", { CNI_ARGS: undefined }, {}],
    ["no pod in CNI_ARGS", { CNI_ARGS: "IgnoreUnknown=1" }, {}],
    ["only a namespace", { CNI_ARGS: "K8S_POD_NAMESPACE=shop" }, {}],
    [
      "the agent's own pod",
      { CNI_ARGS: "K8S_POD_NAMESPACE=istio-system;K8S_POD_NAME=istio-cni-node-x7k2p" },
      { pod_namespace: "istio-system" },
    ],
    ["an excluded namespace", {}, { exclude_namespaces: ["kube-system", "shop"] }],
  ])("%s", async (_what, env, extra) => {
    await using agent = await FakeAgent.http(agentSocket());
    const run = await runPlugin("ADD", conf("1.0.0", previous("1.0.0"), extra), env);
    expect(run).toMatchObject({ status: 0, stdout: previous("1.0.0"), stderr: "" });
    expect(await runPlugin("CHECK", conf("1.0.0", previous("1.0.0"), extra), env)).toMatchObject({ status: 0 });
    expect(agent.requests).toEqual([]);
  });

  it.each<[string, string, Record<string, unknown>]>([
    ["a pod that borrows the DaemonSet's name elsewhere", "shop;istio-cni-node-x", { pod_namespace: "istio-system" }],
    ["a pod of that name while the own namespace is unknown", ";istio-cni-node-x", { pod_namespace: "" }],
    ["a neighbour in the agent's namespace", "istio-system;ztunnel-1", { pod_namespace: "istio-system" }],
    ["a namespace that only begins like an excluded one", "shop;cart-0", { exclude_namespaces: ["shopping", "sho"] }],
  ])("but not %s", async (_what, who, extra) => {
    await using agent = await FakeAgent.http(agentSocket());
    const [namespace, name] = who.split(";");
    const env = { CNI_ARGS: `K8S_POD_NAMESPACE=${namespace === "" ? "x" : namespace};K8S_POD_NAME=${name}` };
    expect((await runPlugin("ADD", conf("1.0.0", previous("1.0.0"), extra), env)).status).toBe(0);
    expect(agent.requests).toHaveLength(1);
  });
});

describe("with the real server", () => {
  it("the agent's verdicts and errors reach the runtime", async () => {
    const seen: CniPodRequest[] = [];
    let fails = false;
    const work = async (request: CniPodRequest) => {
      seen.push(request);
      if (fails) throw new AgentError("NO_ZTUNNEL", "no ztunnel is connected", "start ztunnel");
      return "ambient" as const;
    };
    const server = new CniServer({
      runDir: dir.path,
      logger: new LogRecorder(),
      metrics: new MetricRecorder(),
      handler: { add: work, check: async (request) => void (await work(request)) },
    });
    await server.listen();
    try {
      const add = await runPlugin("ADD", conf("1.1.0", previous("1.1.0")));
      expect(add).toMatchObject({ status: 0, stdout: previous("1.1.0") });
      expect(await runPlugin("CHECK", conf("1.1.0", previous("1.1.0")))).toMatchObject({ status: 0, stdout: "" });
      fails = true;
      for (const command of ["ADD", "CHECK"]) {
        const failed = await runPlugin(command, conf("1.1.0", previous("1.1.0")));
        expect(failed.status).toBe(1);
        expect(JSON.parse(failed.stdout)).toEqual({
          cniVersion: "1.1.0",
          code: 11,
          msg: "no ztunnel is connected (NO_ZTUNNEL)",
          details: "start ztunnel",
        });
      }
      expect(seen).toHaveLength(4);
      expect(new Set(seen.map((request) => JSON.stringify(request))).size).toBe(1);
      expect(seen[0]).toMatchObject({
        containerId: POD_ENV.CNI_CONTAINERID,
        netns: POD_ENV.CNI_NETNS,
        podUid: "6f0c-1",
        ips: ["10.0.0.2", "fd00::2"],
      });
    } finally {
      await server.stop();
    }
  });
});

describe("the log", () => {
  it("of a failure is one JSON line on stderr, in the file and at the agent's log socket", async () => {
    await using logs = await FakeAgent.http(join(dir.path, "log.sock"), (response) => response.end());
    const run = await runPlugin("ADD", conf("1.0.0", previous("1.0.0")));
    expect(run.status).toBe(1);
    const line = JSON.parse(run.stderr);
    expect(line).toMatchObject({
      level: "error",
      scope: "cni-plugin",
      command: "ADD",
      podNamespace: "shop",
      pod: "cart-0",
      containerId: "8a1b2c3d",
    });
    expect(line.msg).toContain(JSON.parse(run.stdout).msg);
    expect(Math.abs(Date.parse(line.time) - Date.now())).toBeLessThan(60_000);
    expect(readFileSync(dir.file("istio-cni.log"), "utf8")).toBe(run.stderr);
    expect(logs.requests).toEqual([{ method: "POST", path: "/log", body: JSON.stringify([run.stderr.trimEnd()]) }]);
  });
});

it("a large result goes out whole, also on a pipe that does not block", async () => {
  await using _agent = await FakeAgent.http(agentSocket());
  const result = JSON.stringify({ cniVersion: "1.0.0", dns: { search: ["y".repeat(900_000)] } });
  // dd leaves the flag on the pipe that both have as stdout.
  const child = spawn("sh", ["-c", 'dd oflag=nonblock if=/dev/null status=none; exec "$0"', pluginBinary()], {
    env: { ...POD_ENV, PATH: process.env.PATH, CNI_COMMAND: "ADD" },
    stdio: ["pipe", "pipe", "inherit"],
  });
  child.stdin.end(conf("1.0.0", result));
  const [printed, [status]] = await Promise.all([text(child.stdout), once(child, "exit")]);
  expect({ status, size: printed.length }).toEqual({ status: 0, size: result.length });
});
