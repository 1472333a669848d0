// SPDX-License-Identifier: Apache-2.0
// The command line on a node: what the agent says, and what the kernel says when there is no agent.
import * as v from "valibot";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { SECTIONS } from "../../scripts/docs/json.ts";
import type { EnginesReport } from "../../src/core/report/engines.ts";
import type { LevelsReport } from "../../src/core/report/levels.ts";
import type { PodReport, PodsReport } from "../../src/core/report/pods.ts";
import type { StatusReport } from "../../src/core/report/status.ts";
import { OUTBOUND_PROGRAMS } from "../../src/dataplane/ebpf/hooks.ts";
import { native } from "../../src/native/load.ts";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import { until } from "../../src/sandbox/until.ts";
import { asNobody, executeOnNode, inPod, onNode } from "../support/cli.ts";
import { LABEL, PROGRAM, REDIRECTION, withSandbox, workload } from "../support/sandbox.ts";

const WRONG = { "istio.io/reroute-virtual-interfaces": "eth0; reboot" };

async function reports(sandbox: Sandbox): Promise<PodsReport> {
  const { stdout } = await onNode(sandbox, "pods", "-o", "json");
  return JSON.parse(stdout) as PodsReport;
}

/** Programs on the cgroups of the node, and what is pinned there. */
async function attached(sandbox: Sandbox): Promise<readonly string[]> {
  const pins = await sandbox.node.run(["find", "/sys/fs/bpf/ambient-cni", "-type", "f"], { timeoutMs: 5000 });
  const counts = [sandbox.node.cgroups.root, `${sandbox.node.cgroups.root}/kubepods`].map((cgroup) =>
    OUTBOUND_PROGRAMS.map((program) => native().bpfCgroupFlags(cgroup, program).count).join(),
  );
  return [...pins.stdout.split("\n").sort(), ...counts];
}

const named = ({ pods }: PodsReport, name: string): PodReport | undefined => pods.find((pod) => pod.name === name);

test("the agent is asked on the node and in its pod; without it, the kernel tells what it can", async () => {
  await withSandbox({}, async (sandbox) => {
    sandbox.describeMesh(
      ["web", "late", "plain"].map((name, index) => workload(index === 2 ? "other" : "shop", name, index)),
      [],
    );
    for (const name of ["shop", "other"]) sandbox.api.put({ kind: "Namespace", metadata: { name } });
    sandbox.label("shop", LABEL, "ambient");
    await sandbox.startAgent();
    sandbox.startZtunnel();
    await sandbox.ztunnelsConnected(1);
    await sandbox.kubelet.run({ namespace: "shop", name: "web", program: "sleep" });
    await sandbox.kubelet.run({ namespace: "other", name: "plain", program: "sleep" });

    const fine = await onNode(sandbox, "status");
    expect(fine, fine.stderr).toMatchObject({ status: 0, stderr: "" });
    const lines = fine.stdout.split("\n");
    expect(lines[0]).toMatch(/^ambient-cni \S+ {2}node node1 {2}kernel \S+ {2}up \d+s {2}source: agent$/);
    expect(lines[1]).toMatch(/^ {2}cni plugin +OK +\S+\/istio-cni, chained in 10-sandbox.conflist$/);
    expect(lines[2]).toMatch(/^ {2}kubernetes +OK +3 pods, 5 namespaces; pods rv \d+, watch \d+s old, 0 relists$/);
    expect(lines[3]).toMatch(/^ {2}ztunnel +OK +1 connected, 1 acked, 0 pending$/);
    expect(lines[4]).toMatch(/^ {2}dataplane +OK +ebpf, fallback nftables, iptables$/);
    expect(lines[5]).toMatch(/^ {2}pods +OK +1 enrolled, 2 not in mesh$/);
    expect(await onNode(sandbox, "status", "--brief")).toMatchObject({ status: 0, stdout: "ok: 1 pod enrolled\n" });

    const within = await inPod(sandbox, "status", "-o", "json");
    expect(within, within.stderr).toMatchObject({ status: 0, stderr: "" });
    expect(JSON.parse(within.stdout)).toMatchObject({
      source: { from: "agent" },
      node: "node1",
      pods: { enrolled: 1 },
    });

    // A pod whose own settings are wrong is captured by no watch: it fails, and says why.
    const template = { namespace: "other", name: "late", annotations: WRONG, program: "sleep" } as const;
    await sandbox.kubelet.run(template);
    sandbox.label("other", LABEL, "ambient");
    await until("the wrong annotation is reported", async () => {
      return named(await reports(sandbox), "late")?.mesh === "failing";
    });
    await until("the other pod is enrolled", () => sandbox.annotation("other", "plain", REDIRECTION) === "enabled");
    const failing = await onNode(sandbox, "pods", "--failing");
    expect(failing.status).toBe(1);
    const [title, row, end] = failing.stdout.split("\n");
    expect(title).toMatch(/^NAMESPACE +POD +IP +NETNS +MESH +DATAPLANE +ZTUNNEL +SINCE +REASON$/);
    expect(row).toMatch(/^other +late +10\.66\.0\.\d+ +\d+ +failing +- +- +\d+s +ANNOTATION_INVALID( \(\d+x\))?$/);
    expect(end).toBe("");
    const degraded = await onNode(sandbox, "status");
    expect(degraded.status).toBe(1);
    expect(degraded.stdout).toMatch(
      /\n {2}pods +WARN +2 enrolled, 1 failing, 1 not in mesh\n {2}drift .*\n! other\/late {2}ANNOTATION_INVALID.*reboot/,
    );
    expect(await onNode(sandbox, "status", "--brief")).toMatchObject({
      status: 1,
      stdout: "degraded: 1 of 3 pods failing\n",
    });
    const wrong = await onNode(sandbox, "pods", "wep");
    expect(wrong).toMatchObject({ status: 1, stdout: "" });
    expect(wrong.stderr).toBe('ambient-cni: no pod of this node is "wep"\n  did you mean web?\n');

    // Levels are changed while it runs: decisions that are no news by default are logged now.
    expect(sandbox.agentLog()).not.toContain("\tdebug\t");
    const levels = await onNode(sandbox, "log", "cni-agent:debug", "zds:error", "-o", "json");
    expect(levels, levels.stderr).toMatchObject({ status: 0 });
    expect((JSON.parse(levels.stdout) as LevelsReport).scopes).toEqual(
      expect.arrayContaining([
        { scope: "cni-agent", level: "debug", configured: "info" },
        { scope: "zds", level: "error", configured: "info" },
      ]),
    );
    await until("a decision is logged for debugging", () =>
      sandbox.agentLog().includes("\tdebug\tcni-agent\tpass failed"),
    );
    const reset = await inPod(sandbox, "log", "--reset", "-o", "json");
    const { scopes } = JSON.parse(reset.stdout) as LevelsReport;
    expect(scopes.filter(({ level, configured }) => level !== configured)).toEqual([]);

    const engines = await inPod(sandbox, "engines");
    expect(engines.stdout).toMatch(/^ebpf +yes +yes +2 +\d+ ms +none$/m);
    const settings = await onNode(sandbox, "config", "--changed");
    expect(settings.stdout).toMatch(/^AMBIENT_ENABLED +env AMBIENT_ENABLED +true$/m);
    expect(settings.stdout).toMatch(/^--log_output_level +flag --log_output_level +info$/m);
    // Where the agent's directories are on the node, the agent knows: on k3s they are not where they usually are.
    const usual = ["env", "MOUNTED_CNI_NET_DIR=/nowhere", "AMBIENT_CNI_BIN_DIR=/nowhere", process.execPath, PROGRAM];
    const cni = await executeOnNode(sandbox, [...usual, "check", "--category", "cni"]);
    expect(cni.stdout).toMatch(/√ the plugin's binary is where runtimes look for it: \S+\/opt\/cni\/bin\/istio-cni\n/);
    expect(cni.stdout).toMatch(/√ the plugin is in the configuration by which pods start: \S+\/10-sandbox.conflist\n/);
    const yaml = await onNode(sandbox, "pods", "-o", "yaml");
    expect(parse(yaml.stdout), yaml.stderr).toMatchObject({ schemaVersion: 1, node: "node1" });
    const versions = await onNode(sandbox, "version");
    expect(versions.stdout).toMatch(/^agent +\d+\.\d+\.\d+$/m);

    // Its socket is root's alone.
    const stranger = await asNobody(sandbox, "status");
    expect(stranger).toMatchObject({ status: 4, stdout: "" });
    expect(stranger.stderr).toMatch(/^ambient-cni: not permitted: EACCES \S+\n {2}only root may ask the agent\n$/);

    // A full disk: a script must not take the rest for all of it.
    const argv = ["sh", "-c", 'exec "$@" > /dev/full', "sh", process.execPath, PROGRAM, "pods", "-o", "json"];
    const cut = await executeOnNode(sandbox, argv);
    expect(cut.status).toBe(1);
    expect(cut.stderr).toMatch(/^ambient-cni: can't write the output: ENOSPC/);

    const help = await onNode(sandbox, "install-cni", "--help");
    expect(help).toMatchObject({ status: 0, stderr: "" });
    expect(help.stdout).toContain("docs/config.md");

    const before = await reports(sandbox);
    // An agent that hangs does not keep the node's state from being seen.
    sandbox.agent?.signal("SIGSTOP");
    const hung = await onNode(sandbox, "pods", "--enrolled", "--timeout", "300ms");
    sandbox.agent?.signal("SIGCONT");
    expect(hung).toMatchObject({ status: 3, stderr: "" });
    const [header, , plain, web] = hung.stdout.split("\n");
    expect(header).toBe(
      "source: kernel (the agent at /var/run/istio-cni/ambient-cni.sock does not answer within 300 ms)",
    );
    expect(plain).toMatch(/^other +plain +10\S+ +\d+ +captured +ebpf +listening/);
    expect(web).toMatch(/^shop +web +10\S+ +\d+ +captured +ebpf +listening/);
    await sandbox.endAgent("SIGKILL");
    const after = await reports(sandbox);
    expect(after.source).toEqual({
      from: "kernel",
      note: "agent unreachable: ECONNREFUSED /var/run/istio-cni/ambient-cni.sock",
    });
    // No field that docs/json.md does not have: what reads a document leaves such out.
    for (const argv of [["status"], ["pods"], ["inspect", "web"], ["verify", "web"], ["engines"], ["version"]]) {
      const written: unknown = JSON.parse((await onNode(sandbox, ...argv, "-o", "json")).stdout);
      const section = SECTIONS.find(({ command }) => command === argv[0]);
      expect(section === undefined ? undefined : v.parse(section.schema, written), argv[0]).toEqual(written);
    }
    for (const name of ["web", "plain", "late"]) {
      const [told, seen] = [named(before, name), named(after, name)];
      const mesh = name === "late" ? "none" : "captured";
      const ztunnel = name === "late" ? null : "listening";
      expect(seen, name).toMatchObject({ uid: told?.uid, netns: told?.netns, engine: told?.engine, mesh, ztunnel });
      expect([...(seen?.ips ?? [])].sort(), name).toEqual([...(told?.ips ?? [])].sort());
    }
    const alone = await onNode(sandbox, "status", "-o", "json");
    expect(alone, alone.stderr).toMatchObject({ status: 3, stderr: "" });
    const status = JSON.parse(alone.stdout) as StatusReport;
    expect(status.components.map(({ verdict }) => verdict)).toEqual([
      "ok",
      "unknown",
      "ok",
      "unknown",
      "unknown",
      "unknown",
    ]);
    // ztunnel's pod is one of those without capture.
    expect(status.pods).toEqual({ captured: 2, none: 2 });

    // Every engine is tried now, beside what the killed agent has left, which stays as it is.
    const hooks = await attached(sandbox);
    const last = await onNode(sandbox, "engines");
    expect(last.stdout).toMatch(
      /^source: kernel \(agent unreachable: .*; self-tests of the last agent, \d+s ago: --now makes them anew\)\n/,
    );
    expect(last.stdout).toMatch(/^ebpf +yes +\? +2 +\d+ ms +none$/m);
    expect(last).toMatchObject({ status: 0, stderr: "" });
    const tried = await onNode(sandbox, "engines", "--now", "-o", "json");
    expect(tried, tried.stderr).toMatchObject({ status: 0 });
    const { engines: tests, source } = JSON.parse(tried.stdout) as EnginesReport;
    expect(source.from).toBe("kernel");
    expect(tests.map(({ engine, works, reason, pods }) => [engine, works, reason, pods])).toEqual([
      ["ebpf", true, null, 2],
      ["nftables", true, null, 0],
      ["iptables", true, null, 0],
    ]);
    expect(await attached(sandbox)).toEqual(hooks);
    expect(await onNode(sandbox, "log")).toMatchObject({ status: 3, stdout: "" });
    expect((await onNode(sandbox, "version")).stdout).toMatch(/^agent +- \(source: kernel \(agent unreachable/m);

    // Let out by hand, with ztunnel in the pods still: who serves them is no proof that they are in the mesh.
    const released = await onNode(sandbox, "remove", "--uncapture");
    expect(released.status, released.stdout + released.stderr).toBe(0);
    const out = named(await reports(sandbox), "web");
    expect(out).toMatchObject({ mesh: "none", engine: null, ztunnel: "listening", reason: "served-uncaptured" });
    const past = await onNode(sandbox, "inspect", "web", "--diff");
    expect(past.status).toBe(1);
    expect(past.stdout).toMatch(/\n {2}× capture {2}nothing of ours is in its netns, and ztunnel listens in it: /);
    const told = await onNode(sandbox, "status");
    expect(told.status).toBe(3);
    expect(told.stdout).toMatch(/\n {2}pods +WARN +0 captured, 4 not; .*; 2 served by ztunnel and not captured\n/);
    expect(told.stdout).toMatch(/\n! shop\/web +NOT_CAPTURED: nothing of ours is in its netns/);
  });
});
