// SPDX-License-Identifier: Apache-2.0
// One pod looked at closely: by the agent, and without one.
import { expect, test } from "vitest";
import type { CheckReport } from "../../src/cli/check/check.ts";
import type { PodsReport } from "../../src/core/report/pods.ts";
import { ipOf } from "../../src/sandbox/pod-records.ts";
import { until } from "../../src/sandbox/until.ts";
import { inPod, inPrivilegedPod, onNode } from "../support/cli.ts";
import { appOf, LABEL, REDIRECTION, withSandbox, workload } from "../support/sandbox.ts";

test("inspect, verify and reset-existing, with the agent and without", async () => {
  await withSandbox({}, async (sandbox) => {
    sandbox.describeMesh(
      ["client", "server"].map((name, index) => workload("shop", name, index)),
      [],
    );
    sandbox.api.put({ kind: "Namespace", metadata: { name: "shop" } });
    await sandbox.startAgent();
    sandbox.startZtunnel();
    await sandbox.ztunnelsConnected(1);
    const client = await sandbox.kubelet.run({ namespace: "shop", name: "client" });
    const server = await sandbox.kubelet.run({ namespace: "shop", name: "server" });
    await appOf(client).open("old", ipOf(server, 4), 9090);
    sandbox.label("shop", LABEL, "ambient");
    await until("both are enrolled", () =>
      ["client", "server"].every((name) => sandbox.annotation("shop", name, REDIRECTION) === "enabled"),
    );

    const inspected = await onNode(sandbox, "inspect", "client");
    expect(inspected.stdout).toMatch(/^shop\/client\n/);
    expect(inspected.stdout).toMatch(/\n {2}namespace labels {2}.*istio.io\/dataplane-mode=ambient/);
    expect(inspected.stdout).toMatch(/\n {2}older connections {2}1, outside the mesh/);
    expect(inspected.stdout).toMatch(/\n {2}√ listener 15008 +HBONE: ztunnel at \[::\]:15008\n/);
    expect(inspected, inspected.stdout).toMatchObject({ status: 0, stderr: "" });
    // ztunnel's call to the server must not get the port that the client's older connection has.
    expect((await onNode(sandbox, "inspect", "server")).stdout).toMatch(
      /\n {2}√ reserved ports +\d+: connections older than the capture have them\n/,
    );
    expect(await inPod(sandbox, "inspect", "client", "--diff")).toMatchObject({
      status: 0,
      stdout: "shop/client: no disagreement\n",
    });

    const verified = await onNode(sandbox, "verify", "--all");
    expect(verified, verified.stdout).toMatchObject({ status: 0, stderr: "" });
    expect(verified.stdout.match(/^PASS shop\/(client|server): 16 of 16 proved in \d+ ms$/gm)).toHaveLength(2);
    expect(await appOf(client).say("old", "still here")).toBe("still here");

    const checked = await onNode(sandbox, "check");
    expect(checked.stdout).toMatch(/\n {2}√ a captured pod's traffic lands where it should: shop\/client: 16 proofs\n/);
    expect(checked.stdout).toMatch(
      /\n {2}‼ no connection is older than its pod's capture {3}AMB-404\n {6}shop\/client: 1\b/,
    );
    // What only the API server knows, and who has a way to it.
    expect(checked.stdout).toMatch(/\n\d+ passed, \d warnings?, 0 failed, 5 not known\n$/);
    expect(checked.status, checked.stdout).toBe(0);
    const inside = await inPod(sandbox, "check", "-o", "json");
    const { checks } = JSON.parse(inside.stdout) as { readonly checks: readonly CheckReport[] };
    const unknown = checks
      .filter(({ verdict }) => verdict === "skip")
      .map(({ code, evidence }) => `${code} ${evidence}`);
    expect(unknown).toEqual([
      expect.stringMatching(/^AMB-411 the node has no default route/),
      expect.stringMatching(/^AMB-413 this account may not list NetworkPolicies/),
      expect.stringMatching(/^AMB-604 it says nothing about itself/),
    ]);
    const clock = checks.find(({ code }) => code === "AMB-104");
    expect(clock?.evidence, "the sandbox's API server has the same clock").toMatch(/^they differ by less than \d s$/);

    const reset = await onNode(sandbox, "reset-existing", "--all");
    expect(reset, reset.stderr).toMatchObject({ status: 0 });
    expect(reset.stdout).toMatch(/^shop\/client: 1 reset\nshop\/server: [01] reset\n$/);
    await expect(appOf(client).say("old", "gone")).rejects.toThrow();

    // A command in the pod's network, on the node and in the agent's container, which has no way to the node's files.
    const before = await onNode(sandbox, "pods", "-o", "json");
    const shell = (run: typeof onNode, ...command: string[]) =>
      run(sandbox, "inspect", "client", "--netns-shell", "--", ...command);
    const addresses = await shell(onNode, "ip", "-4", "-brief", "address", "show", "eth0");
    expect(addresses, addresses.stderr).toMatchObject({ status: 0, stderr: "" });
    expect(addresses.stdout).toContain(`${ipOf(client, 4)}/`);
    expect(await shell(onNode, "sh", "-c", "exit 7")).toMatchObject({ status: 7, stdout: "", stderr: "" });
    // What it opens is captured as what the pod opens: ztunnel, and so the server, sees the client's address.
    const asked = await shell(onNode, "curl", "-s", "--max-time", "5", `http://${ipOf(server, 4)}:8080/`);
    expect(asked, asked.stderr).toMatchObject({ status: 0 });
    expect(JSON.parse(asked.stdout)).toMatchObject({ server: "server" });
    const contained = await shell(inPod, "ip", "-4", "-brief", "address", "show", "eth0");
    expect(contained.stdout).toBe(addresses.stdout);
    expect(contained.stderr).toMatch(/^ambient-cni: the node's programs can't be reached.*CAP_SYS_CHROOT; these are/);
    // With CAP_SYS_CHROOT it is the node's file system: its init has a mount of its own there.
    const entered = await shell(inPrivilegedPod, "sh", "-c", "ip -4 -brief address show eth0; ls /var/log/pods");
    expect(entered, entered.stderr).toMatchObject({ status: 0, stderr: "" });
    expect(entered.stdout).toMatch(new RegExp(`${ipOf(client, 4)}/.*\\nshop_client_`));
    const none = await shell(inPod, "no-such-program");
    expect(none).toMatchObject({ status: 1, stdout: "" });
    expect(none.stderr).toMatch(
      /\nambient-cni: no-such-program: ENOENT, and the node's programs.*\n {2}here: -- nft list/,
    );
    const after = JSON.parse((await onNode(sandbox, "pods", "-o", "json")).stdout) as PodsReport;
    expect(after.pods).toEqual((JSON.parse(before.stdout) as PodsReport).pods);

    await sandbox.endAgent("SIGKILL");
    // Of the settings this process knows none: what is captured, the pod's own state says.
    const alone = await onNode(sandbox, "verify", "client");
    expect(alone.stderr).toBe("");
    expect(alone.stdout).toMatch(/^source: kernel \(agent unreachable: /);
    expect(alone.stdout).toMatch(/\nPASS shop\/client: 16 of 16 proved in \d+ ms\n$/);
    const seen = await onNode(sandbox, "inspect", "client");
    expect(seen.stdout).toMatch(/\n {2}because +ebpf, captured\n/);
    expect(seen, seen.stdout).toMatchObject({ status: 0, stderr: "" });
    const unanswered = await onNode(sandbox, "check", "--category", "agent");
    expect(unanswered.stdout).toMatch(/\n {2}× the agent answers {3}AMB-601\n/);
    expect(unanswered.stdout).toMatch(/\n {2}√ what is pinned belongs to pods that live: 2 pods\n/);
    expect(unanswered.status).toBe(1);
    await sandbox.ztunnels[0]?.child.end(10_000);
    const broken = await onNode(sandbox, "inspect", "client", "--diff");
    expect(broken.stdout).toMatch(/\n {2}× listener 15001 +outbound: ztunnel does not listen\n/);
    expect(broken.status).toBe(1);
    expect((await onNode(sandbox, "verify", "client")).stdout).toMatch(/\nFAIL shop\/client: /);
    // A pod that goes while no agent runs leaves its entry.
    await sandbox.kubelet.remove(server);
    const stale = await onNode(sandbox, "check", "--category", "agent");
    expect(stale.stdout).toMatch(/ {3}AMB-603\n {6}1 of 2 belong to no process of the node\n/);
  });
});
