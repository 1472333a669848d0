// SPDX-License-Identifier: Apache-2.0
import { readFileSync, writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { until } from "../../src/sandbox/until.ts";
import { appOf, httpUrl, LABEL, REDIRECTION, withSandbox, workload } from "../support/sandbox.ts";

test("a pod whose netns is replaced under its uid, unseen by our plugin, is back in the mesh within 60 s", async () => {
  await withSandbox({}, async (sandbox) => {
    // The replaced sandbox gets the next address.
    sandbox.describeMesh(
      [
        workload("shop", "client", 0),
        { ...workload("shop", "server", 1), ips: ["10.66.0.3", "fd66::3", "10.66.0.4", "fd66::4"] },
      ],
      [],
    );
    sandbox.api.put({ kind: "Namespace", metadata: { name: "shop" } });
    sandbox.label("shop", LABEL, "ambient");
    await sandbox.startAgent();
    sandbox.startZtunnel();
    await sandbox.ztunnelsConnected(1);
    const client = await sandbox.kubelet.run({ namespace: "shop", name: "client" });
    const server = await sandbox.kubelet.run({ namespace: "shop", name: "server" });
    expect((await appOf(client).fetch(httpUrl(server))).server).toBe("server");

    const chain = readFileSync(sandbox.confPath, "utf8");
    const list = JSON.parse(chain) as { plugins: { type: string }[] };
    list.plugins = list.plugins.filter(({ type }) => type !== "istio-cni");
    writeFileSync(sandbox.confPath, JSON.stringify(list));
    const moved = await sandbox.kubelet.replaceSandbox(server, { namespace: "shop", name: "server" });
    expect(moved.uid).toBe(server.uid);
    expect(moved.attachment.netns).not.toBe(server.attachment.netns);

    const began = Date.now();
    await until(
      "the new netns is captured",
      async () => {
        const { stdout } = await sandbox.node.run(
          ["nsenter", `--net=${moved.attachment.netns}`, "--", "tc", "filter", "show", "dev", "eth0", "egress"],
          { timeoutMs: 5000 },
        );
        return stdout.includes("ambient_leave") && sandbox.annotation("shop", "server", REDIRECTION) === "enabled";
      },
      60_000,
    );
    expect(Date.now() - began).toBeLessThan(60_000);
    const { server: name, clientSeen } = await appOf(client).fetch(httpUrl(moved));
    expect([name, clientSeen.split(":")[0]]).toEqual(["server", "10.66.0.2"]);
  });
});
