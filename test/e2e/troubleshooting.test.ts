// SPDX-License-Identifier: Apache-2.0
// docs/TROUBLESHOOTING.md holds what the commands say on a node where that very thing has gone wrong: it is done here,
// in one sandbox, and the document compared with what they say. `-u` writes them into the document.
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { CniPluginError } from "../../src/sandbox/cni-chain.ts";
import type { PodTemplate } from "../../src/sandbox/kubelet.ts";
import { ipOf, NODE_NAME } from "../../src/sandbox/pod-records.ts";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import { until } from "../../src/sandbox/until.ts";
import { appOf, LABEL, REDIRECTION, withSandbox, workload } from "../support/sandbox.ts";
import { Terminal } from "../support/terminal.ts";
import { withTranscripts } from "../support/transcript.ts";

const DOCUMENT = fileURLToPath(new URL("../../docs/TROUBLESHOOTING.md", import.meta.url));
/** What kubelet would write into the pod's Events, from what the plugin says. */
async function refusal(sandbox: Sandbox, template: PodTemplate): Promise<string> {
  try {
    await sandbox.kubelet.run(template);
  } catch (error) {
    if (!(error instanceof CniPluginError)) throw error;
    const { plugin, msg, details } = error;
    const { name, namespace } = template;
    sandbox.api.delete("Pod", namespace, name);
    return `Warning  FailedCreatePodSandBox  kubelet  plugin type="${plugin}" failed (add): ${msg}: ${details}`;
  }
  throw new Error(`pod ${template.name} started`);
}

test("docs/TROUBLESHOOTING.md shows what the commands say when these things go wrong", async () => {
  await withSandbox({}, async (sandbox) => {
    const { node, api, kubelet } = sandbox;
    const terminal = new Terminal(sandbox);
    const onNode = (...argv: string[]) => node.run(argv, { timeoutMs: 5000 });
    const enrolled = (...names: string[]) =>
      until("they are enrolled", () =>
        names.every((name) => sandbox.annotation("shop", name, REDIRECTION) === "enabled"),
      );
    sandbox.describeMesh(
      ["client", "server", "batch", "plain"].map((name, index) =>
        workload(index === 3 ? "legacy" : "shop", name, index),
      ),
      [],
    );
    for (const name of ["shop", "legacy"]) api.put({ kind: "Namespace", metadata: { name } });
    await sandbox.startAgent();
    const ztunnel = sandbox.startZtunnel();
    await sandbox.ztunnelsConnected(1);
    const client = await kubelet.run({ namespace: "shop", name: "client" });
    const server = await kubelet.run({ namespace: "shop", name: "server" });
    const sleep = { namespace: "shop", program: "sleep" } as const;
    await kubelet.run({ ...sleep, name: "batch", labels: { [LABEL]: "none" } });
    await kubelet.run({ namespace: "legacy", name: "plain", program: "sleep" });
    api.put({
      kind: "Pod",
      metadata: { name: "node-exporter", namespace: "shop" },
      spec: { nodeName: NODE_NAME, hostNetwork: true, containers: [{ name: "app", image: "sandbox/app" }] },
      status: { phase: "Running" },
    });
    await appOf(client).open("old", ipOf(server, 4), 9090);
    sandbox.label("shop", LABEL, "ambient");
    await enrolled("client", "server");

    await until("both are counted", async () =>
      (await terminal.type("healthy", "ambient-cni status")).includes("2 acked"),
    );
    await terminal.type("not-captured", "ambient-cni pods --all -n shop", "ambient-cni pods plain");
    await terminal.type("older", "ambient-cni pods client", "ambient-cni reset-existing shop/client");

    // A firewall of the node's between its pods, as a NetworkPolicy that knows port 8080 only.
    const drop = "ip daddr 10.66.0.3 tcp dport 15008 drop";
    await onNode("nft", `table bridge firewall { chain forward { type filter hook forward priority 0; ${drop}; }; }`);
    await terminal.type(
      "hbone",
      `ambient-cni inspect legacy/plain --netns-shell -- curl -sS --max-time 1 http://${ipOf(server, 4)}:15008/`,
      "ambient-cni verify shop/server | grep hbone",
    );
    await onNode("nft", "delete table bridge firewall");

    const probes = "ip daddr 10.66.0.3 tcp flags syn drop";
    await onNode("nft", `table bridge firewall { chain output { type filter hook output priority 0; ${probes}; }; }`);
    await terminal.type("probes", "ambient-cni verify shop/server | grep probe");
    await onNode("nft", "delete table bridge firewall");

    const inClient = (...argv: string[]) => onNode("nsenter", `--net=${client.attachment.netns}`, "--", ...argv);
    await inClient("tc", "qdisc", "del", "dev", "eth0", "clsact");
    await until("the repair is told", async () => {
      const told = await terminal.type("flushed", "ambient-cni inspect shop/client | grep repaired");
      return told.includes("10:00:00.000  repaired");
    });

    await ztunnel.child.end(10_000);
    await until("its end is noticed", async () => sandbox.agentLog().includes("ztunnel disconnected"));
    await terminal.type("no-ztunnel", "ambient-cni status", "ambient-cni inspect shop/client --diff");
    terminal.keep("no-ztunnel-add", await refusal(sandbox, { ...sleep, name: "late" }));
    sandbox.startZtunnel();
    await sandbox.ztunnelsConnected(1);

    await kubelet.run({ namespace: "shop", name: "orders", sidecar: true });
    await terminal.type("sidecar", "ambient-cni inspect shop/orders | sed -n '/^mesh/,/because/p'");

    await sandbox.endAgent("SIGKILL");
    terminal.keep("agent-away", await refusal(sandbox, { ...sleep, name: "later" }));
    await terminal.type("agent-away-status", "ambient-cni status");
    await inClient("tc", "qdisc", "del", "dev", "eth0", "clsact");
    await terminal.type("flushed-alone", "ambient-cni inspect shop/client --diff", "ambient-cni verify shop/client");
    renameSync(sandbox.confPath, `${sandbox.confPath}.cilium_bak`);
    writeFileSync(
      node.path("etc/cni/net.d/05-cilium.conflist"),
      JSON.stringify({ cniVersion: "1.0.0", name: "cilium", plugins: [{ type: "cilium-cni" }] }),
    );
    await terminal.type("chain", "ambient-cni check --category cni | grep -A2 'AMB-20[23]'");
    await terminal.type("removed", "ambient-cni remove --dry-run");

    await sandbox.startAgent(true, { AMBIENT_IPV6: "false" });
    await terminal.type("ipv6", "ambient-cni check --category pods | grep -A2 AMB-405");
    const document = readFileSync(DOCUMENT, "utf8");
    await expect(withTranscripts(document, terminal.transcripts)).toMatchFileSnapshot(DOCUMENT);
  });
});
