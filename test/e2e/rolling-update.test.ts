// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { until } from "../../src/sandbox/until.ts";
import { appOf, httpUrl, LABEL, REDIRECTION, withSandbox, workload } from "../support/sandbox.ts";

test("a rolling update of ztunnel refuses no connection, and pods labelled meanwhile reach both", async () => {
  await withSandbox({}, async (sandbox) => {
    sandbox.describeMesh(
      [workload("shop", "client", 0), workload("shop", "server", 1), workload("late", "third", 2)],
      [],
    );
    for (const name of ["shop", "late"]) sandbox.api.put({ kind: "Namespace", metadata: { name } });
    sandbox.label("shop", LABEL, "ambient");
    await sandbox.startAgent();
    const old = sandbox.startZtunnel();
    await sandbox.ztunnelsConnected(1);
    const client = await sandbox.kubelet.run({ namespace: "shop", name: "client" });
    const server = await sandbox.kubelet.run({ namespace: "shop", name: "server" });
    const third = await sandbox.kubelet.run({ namespace: "late", name: "third" });

    const failures: string[] = [];
    let requests = 0;
    let done = false;
    const traffic = (async () => {
      while (!done) {
        requests += 1;
        await appOf(client)
          .fetch(httpUrl(server))
          .catch((error: unknown) => failures.push(String(error)));
      }
    })();
    sandbox.startZtunnel();
    sandbox.label("late", LABEL, "ambient");
    await until("the third pod is captured", () => sandbox.annotation("late", "third", REDIRECTION) === "enabled");
    await new Promise((resolve) => setTimeout(resolve, 1000));
    await old.child.end(10_000);
    await new Promise((resolve) => setTimeout(resolve, 500));
    const { server: name } = await appOf(client).fetch(httpUrl(third));
    done = true;
    await traffic;
    expect(name).toBe("third");
    expect(failures).toEqual([]);
    expect(requests).toBeGreaterThan(20);
  });
});
