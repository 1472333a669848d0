// SPDX-License-Identifier: Apache-2.0
// Whatever comes in, one CNI error object that names it comes out, and the agent is not bothered.
import { randomBytes } from "node:crypto";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { runPlugin } from "../../support/cni-plugin.ts";
import { FakeAgent } from "../../support/fake-agent.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

let dir: ScratchDir;
beforeEach(() => {
  dir = new ScratchDir();
});
afterEach(() => dir[Symbol.dispose]());

const agentSocket = () => dir.file("pluginevent.sock");

function conf(changes: Record<string, unknown> = {}): string {
  return JSON.stringify({
    cniVersion: "1.0.0",
    name: "k8s",
    type: "istio-cni",
    cni_agent_run_dir: dir.path,
    prevResult: { cniVersion: "1.0.0", ips: [{ address: "10.0.0.2/24" }] },
    ...changes,
  });
}

async function expectError(
  stdin: string | Buffer | undefined,
  code: number,
  text: string,
  env: Record<string, string | undefined> = {},
): Promise<void> {
  await using agent = await FakeAgent.http(agentSocket());
  const run = await runPlugin("ADD", stdin, env);
  expect(run.signal).toBeNull();
  expect(run.status).toBe(1);
  const error = JSON.parse(run.stdout);
  expect(error).toMatchObject({ code, msg: expect.stringContaining(text), details: expect.stringMatching(/\w{3}/) });
  expect(error.cniVersion).toMatch(/^\d\.\d\.\d$/);
  expect(JSON.parse(run.stderr)).toMatchObject({ level: "error" });
  expect(agent.requests).toEqual([]);
}

describe("stdin", () => {
  it.each<[string, () => string | Buffer, number, string]>([
    ["empty", () => "", 6, "not JSON"],
    ["truncated", () => conf().slice(0, -20), 6, "not JSON"],
    ["truncated in a string", () => conf().slice(0, 14), 6, "not JSON"],
    ["random bytes", () => randomBytes(4096), 6, "not JSON"],
    ["text after the object", () => `${conf()} x`, 6, "not JSON"],
    ["two objects", () => conf() + conf(), 6, "not JSON"],
    ["a NUL byte in a string", () => conf({ x: "a@b" }).replace("@", "\u0000"), 6, "not JSON"],
    ["an escaped NUL", () => conf({ x: "a\u0000b" }), 6, "not JSON"],
    ["a NUL byte after the object", () => `${conf()}\u0000`, 6, "not JSON"],
    [
      "invalid UTF-8",
      () => Buffer.concat([Buffer.from('{"a":"'), Buffer.from([0xc3, 0x28]), Buffer.from('"}')]),
      6,
      "not JSON",
    ],
    ["a byte order mark", () => `\ufeff${conf()}`, 6, "not JSON"],
    ["10 MB of space", () => Buffer.alloc(10 << 20, " "), 6, "larger than 1048576 bytes"],
    ["10 MB of object", () => conf({ x: "y".repeat(10 << 20) }), 6, "larger than 1048576 bytes"],
    ["one byte too many", () => conf().padEnd((1 << 20) + 1), 6, "larger than 1048576 bytes"],
    ["deep arrays", () => "[".repeat(500_000), 6, "depth"],
    ["deep objects", () => '{"a":'.repeat(200_000), 6, "depth"],
    ["an endless number", () => conf({ x: 0 }).replace('"x":0', `"x":1${"0".repeat(5000)}`), 6, "not JSON"],
    ["an array", () => "[]", 6, "is an array, it must be an object"],
    ["null", () => "null", 6, "not JSON"],
  ])("%s", async (_what, make, code, text) => {
    await expectError(make(), code, text);
  });

  it("of exactly 1 MiB is read", async () => {
    await using _agent = await FakeAgent.http(agentSocket());
    expect((await runPlugin("ADD", conf().padEnd(1 << 20))).status).toBe(0);
  });

  it("with an array of 100,000 elements is read, and its strange ips refused", async () => {
    await using agent = await FakeAgent.http(agentSocket());
    expect((await runPlugin("ADD", conf({ other: Array(100_000).fill(1) }))).status).toBe(0);
    expect(agent.requests).toHaveLength(1);
    await agent[Symbol.asyncDispose]();
    await expectError(conf({ prevResult: { ips: Array(100_000).fill(1) } }), 7, "names 100000 addresses, more than 64");
  });

  it("that is never closed ends in an error after its deadline, except for DEL, which ends at once", async () => {
    const [add, del] = await Promise.all([runPlugin("ADD", undefined), runPlugin("DEL", undefined)]);
    expect(JSON.parse(add.stdout)).toMatchObject({ code: 5, msg: expect.stringContaining("stdin") });
    expect(add.milliseconds).toBeLessThan(10_000);
    expect(del).toMatchObject({ status: 0, stdout: "" });
    expect(del.milliseconds).toBeLessThan(1000);
  });
});

describe("configuration", () => {
  it.each<[Record<string, unknown>, number, string]>([
    [{ cniVersion: undefined }, 1, "no cniVersion"],
    [{ cniVersion: "" }, 1, "no cniVersion"],
    [{ cniVersion: "0.1.0" }, 1, '"0.1.0" is not supported'],
    [{ cniVersion: "0.2.0" }, 1, '"0.2.0" is not supported'],
    [{ cniVersion: "1.2.0" }, 1, '"1.2.0" is not supported'],
    [{ cniVersion: "1.0" }, 1, '"1.0" is not supported'],
    [{ cniVersion: "ü\n".repeat(500) }, 1, "is not supported"],
    [{ cniVersion: 1 }, 7, "cniVersion is a number, it must be a string"],
    [{ name: undefined }, 7, 'name ""'],
    [{ name: "a/b" }, 7, 'name "a/b"'],
    [{ name: {} }, 7, "name is an object, it must be a string"],
    [{ cni_agent_run_dir: "run" }, 7, 'cni_agent_run_dir "run" is not an absolute path'],
    [{ cni_agent_run_dir: "" }, 7, "is not an absolute path"],
    [{ cni_agent_run_dir: "/var/../etc" }, 7, "is not an absolute path"],
    [{ cni_agent_run_dir: "/var/run\n" }, 7, "is not an absolute path"],
    [{ cni_agent_run_dir: `/${"x".repeat(80)}` }, 7, "is longer than 80 bytes"],
    [{ cni_agent_run_dir: 1 }, 7, "cni_agent_run_dir is a number, it must be a string"],
    [{ ambient_enabled: "true" }, 7, "ambient_enabled is a string, it must be a boolean"],
    [{ exclude_namespaces: "kube-system" }, 7, "exclude_namespaces is a string, it must be an array"],
    [{ exclude_namespaces: ["a", null] }, 7, "an item of exclude_namespaces is null, it must be a string"],
    [{ pod_namespace: [] }, 7, "pod_namespace is an array, it must be a string"],
    [{ agent_away: "open" }, 7, 'agent_away "open"'],
    [{ agent_away: true }, 7, "agent_away is a boolean, it must be a string"],
    [{ plugin_log_level: "loud" }, 7, 'plugin_log_level "loud"'],
    [{ prevResult: "x" }, 7, "prevResult is a string, it must be an object"],
    [{ prevResult: [] }, 7, "prevResult is an array, it must be an object"],
    [{ prevResult: { cniVersion: 1 } }, 1, "prevResult is of version (no string)"],
    [{ prevResult: { ips: {} } }, 7, "prevResult.ips is an object, it must be an array"],
    [{ prevResult: { ips: [null] } }, 7, "prevResult.ips[0].address (no string)"],
    [{ prevResult: { ips: [{ address: 7 }] } }, 7, "prevResult.ips[0].address (no string)"],
    [{ prevResult: { ips: [{ address: "10.0.0.2/24" }, { address: "10.0.0.2" }] } }, 7, "prevResult.ips[1].address"],
    [{ prevResult: { ips: [{ address: "10.0.0.256/24" }] } }, 7, '"10.0.0.256/24" is no address'],
    [{ prevResult: { ips: [{ address: "10.0.0.2/33" }] } }, 7, '"10.0.0.2/33" is no address'],
    [{ prevResult: { ips: [{ address: "fd00::2/129" }] } }, 7, '"fd00::2/129" is no address'],
    [{ prevResult: { ips: [{ address: "10.0.0.2/-1" }] } }, 7, "is no address"],
    [{ prevResult: { ips: [{ address: `${"1".repeat(5000)}/24` }] } }, 7, "is no address"],
  ])("%j", async (changes, code, text) => {
    await expectError(conf(changes), code, text);
  });

  it("names the supported versions when it refuses one", async () => {
    const run = await runPlugin("ADD", conf({ cniVersion: "2.0.0" }));
    for (const version of ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]) expect(run.stdout).toContain(version);
  });

  it("of upstream's installer is understood, with its null and what we don't know", async () => {
    await using agent = await FakeAgent.http(agentSocket());
    const run = await runPlugin(
      "ADD",
      conf({
        ipam: {},
        dns: {},
        plugin_log_level: "info",
        ambient_enabled: true,
        enablement_selectors: [{ podSelector: { matchLabels: { "istio.io/dataplane-mode": "ambient" } } }],
        exclude_namespaces: null,
        pod_namespace: "istio-system",
        native_nftables: false,
        enable_ambient_detection_retry: false,
        from_a_later_version: { a: [1] },
      }),
    );
    expect(run.status).toBe(0);
    expect(agent.requests).toHaveLength(1);
  });
});

describe("environment", () => {
  it.each<[string, Record<string, string | undefined>, string]>([
    ["no container", { CNI_CONTAINERID: undefined }, "no CNI_CONTAINERID"],
    ["a container id that is a path", { CNI_CONTAINERID: "../x" }, 'CNI_CONTAINERID "../x"'],
    ["an endless container id", { CNI_CONTAINERID: "x".repeat(5000) }, "CNI_CONTAINERID"],
    ["no netns", { CNI_NETNS: undefined }, "no CNI_NETNS"],
    ["an empty netns", { CNI_NETNS: "" }, 'CNI_NETNS ""'],
    ["a relative netns", { CNI_NETNS: "netns/x" }, 'CNI_NETNS "netns/x"'],
    ["no interface", { CNI_IFNAME: undefined }, "no CNI_IFNAME"],
    ["an interface with a slash", { CNI_IFNAME: "eth0/1" }, 'CNI_IFNAME "eth0/1"'],
    ["an interface of 16 bytes", { CNI_IFNAME: "a".repeat(16) }, "CNI_IFNAME"],
    ["an unknown argument", { CNI_ARGS: "MAC=1;K8S_POD_NAME=p" }, 'unknown key "MAC"'],
    ["an unknown argument, not ignored", { CNI_ARGS: "MAC=1;IgnoreUnknown=0" }, 'unknown key "MAC"'],
    ["IgnoreUnknown=perhaps", { CNI_ARGS: "IgnoreUnknown=perhaps" }, 'IgnoreUnknown "perhaps"'],
    ["an argument without value", { CNI_ARGS: "IgnoreUnknown=1;K8S_POD_NAME" }, '"K8S_POD_NAME" is not KEY=value'],
    ["an argument without key", { CNI_ARGS: "=x" }, '"=x" is not KEY=value'],
    ["a pod name in capitals", { CNI_ARGS: "K8S_POD_NAME=Cart" }, 'K8S_POD_NAME "Cart"'],
    ["a pod name with a line break", { CNI_ARGS: "K8S_POD_NAME=a\nb" }, 'K8S_POD_NAME "a?b"'],
    ["a pod name of 254 bytes", { CNI_ARGS: `K8S_POD_NAME=${"a".repeat(254)}` }, "K8S_POD_NAME"],
    ["a pod name of 10,000 bytes", { CNI_ARGS: `K8S_POD_NAME=${"a".repeat(10_000)}` }, "K8S_POD_NAME"],
    ["a pod name with JSON in it", { CNI_ARGS: 'K8S_POD_NAME=a","x":"' }, "K8S_POD_NAME"],
    ["a namespace with a dot", { CNI_ARGS: "K8S_POD_NAMESPACE=a.b" }, 'K8S_POD_NAMESPACE "a.b"'],
    ["a UID with a slash", { CNI_ARGS: "K8S_POD_UID=a/b" }, 'K8S_POD_UID "a/b"'],
    ["two names for one pod", { CNI_ARGS: "K8S_POD_NAME=a;K8S_POD_NAME=b" }, "K8S_POD_NAME twice"],
    ["100 kB of arguments", { CNI_ARGS: `IgnoreUnknown=1;X=${"y".repeat(100_000)}` }, "longer than 65536 bytes"],
  ])("%s", async (_what, env, text) => {
    await expectError(conf(), 4, text, env);
  });

  it.each([undefined, "", "add", "\u001b[31m"])("with command %j says what the program is", async (command) => {
    const run = await runPlugin(command, conf());
    expect(run.status).toBe(1);
    expect(JSON.parse(run.stdout)).toMatchObject({
      cniVersion: "1.1.0",
      code: 4,
      msg: expect.stringMatching(/^CNI_COMMAND "[ -~]*" is none of ADD, DEL, CHECK, STATUS, GC, VERSION$/),
    });
  });

  it("may name more than we know when the runtime says so", async () => {
    await using agent = await FakeAgent.http(agentSocket());
    for (const args of [
      "IgnoreUnknown=1;MAC=aa;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0",
      ";K8S_POD_NAMESPACE=shop;;K8S_POD_NAME=cart-0;MAC=a=b;IgnoreUnknown=TRUE;",
    ]) {
      expect((await runPlugin("ADD", conf(), { CNI_ARGS: args })).status).toBe(0);
    }
    const bodies = agent.requests.map(({ body }) => JSON.parse(body));
    expect(bodies).toMatchObject([
      { podName: "cart-0", podUid: "" },
      { podName: "cart-0", podUid: "" },
    ]);
  });
});

describe("DEL and GC never fail", () => {
  it.each<[string, string | Buffer]>([
    ["nothing on stdin", ""],
    ["garbage", randomBytes(1000)],
    ["10 MB", Buffer.alloc(10 << 20, "x")],
    ["an unknown version", '{"cniVersion":"9.9.9"}'],
  ])("with %s", async (_what, stdin) => {
    for (const command of ["DEL", "GC"]) {
      const run = await runPlugin(command, stdin, { CNI_ARGS: "garbage", CNI_NETNS: undefined, CNI_IFNAME: "/" });
      expect(run).toMatchObject({ status: 0, stdout: "" });
      expect(run.milliseconds).toBeLessThan(1000);
    }
  });
});
