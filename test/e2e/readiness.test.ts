// SPDX-License-Identifier: Apache-2.0
// /readyz as kubelet sees it: what it names while the agent comes up, and that nothing of a node's day takes it away.
import { readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { httpGet } from "../../src/sandbox/probe.ts";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import { until } from "../../src/sandbox/until.ts";
import { LABEL, REDIRECTION, withSandbox, workload } from "../support/sandbox.ts";

const PODS = 12;

/** With the node's network, as under older charts, the agent's ports are the node's. */
const readyz = (sandbox: Sandbox) => httpGet(sandbox.node.netnsPath, "127.0.0.1", 8000, "/readyz");

test("ready without a ztunnel, and through labels, tokens, file events and what a pod's own author does", async () => {
  await withSandbox({ chart: "1.24" }, async (sandbox) => {
    const names = Array.from({ length: PODS }, (_, index) => `p${index}`);
    sandbox.describeMesh(
      names.map((name, index) => workload("shop", name, index)),
      [],
    );
    sandbox.api.put({ kind: "Namespace", metadata: { name: "shop" } });
    const conf = readFileSync(sandbox.confPath);
    rmSync(sandbox.confPath);
    await sandbox.startAgent(false);
    const said: string[] = [];
    await until("only the configuration is missing", async () => {
      const { status, body } = await readyz(sandbox).catch(() => ({ status: 0, body: "" }));
      if (status === 503) said.push(body);
      return status === 503 && /^\{"ready":false,"missing":\["[^"]*CNI[^"]*"\]\}/.test(body);
    });
    expect(said.join()).toContain("not serving yet");
    writeFileSync(sandbox.confPath, conf);
    await until("it is ready", async () => (await readyz(sandbox)).status === 200);
    for (const name of names) await sandbox.kubelet.run({ namespace: "shop", name, program: "sleep" });

    const lost: string[] = [];
    let done = false;
    const watch = (async () => {
      while (!done) {
        const { status, body } = await readyz(sandbox);
        if (status !== 200) lost.push(body);
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    })();
    const announced = (value: string | undefined) =>
      names.every((name) => sandbox.annotation("shop", name, REDIRECTION) === value);
    sandbox.label("shop", LABEL, "ambient");
    await until("all wait for a ztunnel", () => announced("pending"));
    sandbox.startZtunnel();
    await until("all are captured", () => announced("enabled"));
    // Kubelet rotates the token by replacing its file; a CNI rewrites and touches its configuration.
    const token = sandbox.node.path("secrets/token");
    writeFileSync(token, readFileSync(token));
    utimesSync(sandbox.confPath, new Date(), new Date());
    writeFileSync(sandbox.node.path("etc/cni/net.d/99-other.conf"), "{}");
    writeFileSync(sandbox.node.path("opt/cni/bin/other"), "#!/bin/true\n");
    await sandbox.kubelet.run({
      namespace: "shop",
      name: "wrong",
      labels: { [LABEL]: "none" },
      annotations: { "istio.io/reroute-virtual-interfaces": "eth0; reboot" },
      program: "sleep",
    });
    sandbox.label("shop", LABEL, null);
    await until("all are released", () => announced(undefined));
    await new Promise((resolve) => setTimeout(resolve, 500));
    done = true;
    await watch;
    expect(lost).toEqual([]);
  });
});
