// SPDX-License-Identifier: Apache-2.0
// Sidecar pods through the whole chain: on a node without ambient, before there is an agent, and with a wrong
// annotation.
import { expect, test } from "vitest";
import type { RunningPod } from "../../src/sandbox/kubelet.ts";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import { until } from "../../src/sandbox/until.ts";
import { onNode } from "../support/cli.ts";
import { appOf, httpUrl, LABEL, withSandbox } from "../support/sandbox.ts";

const NAMESPACE = "sidecars";
const pod = (name: string, sidecar = true) => ({ namespace: NAMESPACE, name, sidecar });

function putNamespace(sandbox: Sandbox, labels: Record<string, string> = {}): void {
  sandbox.api.put({ kind: "Namespace", metadata: { name: NAMESPACE, labels } });
}

/** A request that must come by the pod's sidecar. */
async function expectThroughSidecar(client: RunningPod, server: RunningPod): Promise<void> {
  const { sidecar } = server;
  if (sidecar === undefined) throw new Error(`${server.name} has no sidecar`);
  sidecar.forget();
  const seen = await appOf(client).fetch(httpUrl(server));
  expect(seen).toMatchObject({ server: server.name, clientSeen: expect.stringMatching(/^127\.0\.0\.6:/) });
  await sidecar.until((event) => event.event === "accepted" && event.port === 15006);
}

/** What the commands say of the sidecar pod on a node where all is well. */
async function expectSeenBy(sandbox: Sandbox): Promise<void> {
  const inspected = await onNode(sandbox, "inspect", "server");
  expect(inspected.stdout).toMatch(
    /\n {2}state +sidecar\n {2}because +annotation sidecar.istio.io\/status and container/,
  );
  expect(inspected.stdout).toMatch(/\n {2}inbound +every port but 15020, 15021, 15090\n/);
  expect(inspected.stdout).toMatch(
    /\n {2}√ redirection +nftables, as it should be\n {2}√ listener 15001 +outbound: the proxy, uid 1337\n/,
  );
  expect(inspected, inspected.stdout).toMatchObject({ status: 0, stderr: "" });
  const verified = await onNode(sandbox, "verify", "--all");
  expect(verified.stdout).toMatch(/√ inbound IPv4 +a remote's call to [\d.:]+ is taken by the proxy at port 15006/);
  expect(verified.stdout).toMatch(/\nPASS sidecars\/server: (\d+) of \1 proved in \d+ ms\n$/);
  const checked = await onNode(sandbox, "check", "--category", "pods");
  expect(checked.stdout).toMatch(/√ every sidecar pod is redirected into its sidecar: each is\n/);
  expect(checked.stdout).toMatch(/√ a sidecar pod's traffic lands in its sidecar: sidecars\/server: \d proofs\n/);
}

function events(sandbox: Sandbox): string[] {
  return sandbox.api.list("Event", NAMESPACE).map((event) => {
    const { reason, type, source } = event as unknown as {
      reason: string;
      type: string;
      source: { component: string };
    };
    return `${type} ${reason} ${source.component}`;
  });
}

/** A wrong annotation: the pod's ADD names it, its value and what is allowed. */
async function expectWrongAnnotationNamed(sandbox: Sandbox): Promise<void> {
  const annotations = { "traffic.sidecar.istio.io/excludeOutboundPorts": "80,http" };
  const failure = String(await sandbox.kubelet.run({ ...pod("wrong"), annotations }).catch((error: unknown) => error));
  expect(failure).toContain('annotation traffic.sidecar.istio.io/excludeOutboundPorts="80,http" is not allowed');
  expect(failure).toContain('"http" is wrong');
}

test("a node without ambient, with the stock chart's mounts for that: sidecars, and no ztunnel", async () => {
  await withSandbox({ agentEnv: { AMBIENT_ENABLED: "false" } }, async (sandbox) => {
    putNamespace(sandbox, { [LABEL]: "ambient" });
    await sandbox.startAgent();
    const client = await sandbox.kubelet.run(pod("client", false));
    const server = await sandbox.kubelet.run(pod("server"));
    await expectThroughSidecar(client, server);
    expect(sandbox.annotation(NAMESPACE, "client", "ambient.istio.io/redirection")).toBeUndefined();
    const { stdout } = await sandbox.node.run(["nft", "list", "tables"], { timeoutMs: 5000 });
    expect(stdout).toBe("");
    await expectSeenBy(sandbox);
    // The agent may die and come back: the pod's rules are its netns'.
    await sandbox.endAgent("SIGKILL");
    await expectThroughSidecar(client, server);
    expect((await onNode(sandbox, "pods")).stdout).toMatch(
      /server .*nftables, redirected into its sidecar by our rules/,
    );
    const { status, stdout: unproved } = await onNode(sandbox, "verify", "server");
    expect(unproved).toMatch(/FAIL .*server: .*only the agent knows them\n$/);
    expect(status).toBe(1);
    await sandbox.startAgent();
    await expectThroughSidecar(client, server);
    expect(sandbox.agentLog()).not.toMatch(/\terror\t/);
  });
});

test("a sidecar pod that started before there was a plugin is held by its own check, and repaired by the agent; a wrong annotation fails an ADD", async () => {
  await withSandbox({}, async (sandbox) => {
    putNamespace(sandbox);
    const client = await sandbox.kubelet.run(pod("client", false));
    const running = sandbox.kubelet.run(pod("server"));
    let started = false;
    void running.then(
      () => {
        started = true;
      },
      () => undefined,
    );
    await until("its check has failed", () => {
      const status = sandbox.api.get("Pod", NAMESPACE, "server")?.status as
        | { initContainerStatuses?: unknown }
        | undefined;
      return status?.initContainerStatuses !== undefined;
    });
    expect(started).toBe(false);
    await sandbox.startAgent();
    const server = await running;
    await expectThroughSidecar(client, server);
    await until("an Event tells", () => events(sandbox).length > 0);
    expect(events(sandbox)).toEqual(["Warning RepairBrokenPod cni-repair"]);
    await expectWrongAnnotationNamed(sandbox);
  });
});
