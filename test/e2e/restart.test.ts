// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { BRIDGE } from "../../src/sandbox/network.ts";
import { ipOf } from "../../src/sandbox/pod-records.ts";
import { until } from "../../src/sandbox/until.ts";
import { Wire } from "../../src/sandbox/wire.ts";
import { appOf, httpUrl, LABEL, REDIRECTION, withSandbox, workload } from "../support/sandbox.ts";

const PODS = 50;
const KILLS = 12;
const MARKER = "marker-while-killed";

test("kill -9 at random points of 50 enrolments: captured pods lose and leak nothing, the next start converges", async () => {
  await withSandbox({}, async (sandbox) => {
    const many = Array.from({ length: PODS }, (_, index) => `p${index}`);
    sandbox.describeMesh(
      [
        workload("first", "client", 0),
        workload("first", "server", 1),
        ...many.map((name, index) => workload("many", name, index + 2)),
      ],
      [],
    );
    for (const name of ["first", "many"]) sandbox.api.put({ kind: "Namespace", metadata: { name } });
    sandbox.label("first", LABEL, "ambient");
    await sandbox.startAgent();
    sandbox.startZtunnel();
    await sandbox.ztunnelsConnected(1);
    const client = await sandbox.kubelet.run({ namespace: "first", name: "client" });
    const server = await sandbox.kubelet.run({ namespace: "first", name: "server" });
    for (const name of many) await sandbox.kubelet.run({ namespace: "many", name, program: "sleep" });
    await appOf(client).fetch(httpUrl(server));

    const wire = await Wire.listen(sandbox.node, BRIDGE);
    let requests = 0;
    const failures: string[] = [];
    let done = false;
    const traffic = (async () => {
      while (!done) {
        requests += 1;
        await appOf(client)
          .fetch(httpUrl(server), MARKER)
          .then(
            ({ server: name }) => expect(name).toBe("server"),
            (error: unknown) => failures.push(String(error)),
          );
      }
    })();

    await appOf(client).open("long", ipOf(server, 4), 9090);
    const began = Date.now();
    const enrolledAtKill: number[] = [];
    const enrolled = () => many.filter((name) => sandbox.annotation("many", name, REDIRECTION) === "enabled").length;
    for (let kill = 0; kill < KILLS; kill++) {
      // In and out of the mesh by turns: an enrolment takes a few milliseconds, and each kill is to find some.
      sandbox.label("many", LABEL, kill % 2 === 0 ? "ambient" : null);
      if (kill === 0) await until("the first pod is enrolled", () => enrolled() > 0);
      else await new Promise((resolve) => setTimeout(resolve, Math.random() * 750));
      await sandbox.endAgent("SIGKILL");
      enrolledAtKill.push(enrolled());
      await sandbox.startAgent(false);
    }
    sandbox.label("many", LABEL, "ambient");
    await until(
      "all pods are annotated",
      () => many.every((name) => sandbox.annotation("many", name, REDIRECTION) === "enabled"),
      60_000,
    );
    expect(await appOf(client).say("long", "still here")).toBe("still here");
    done = true;
    await traffic;
    const bytes = await wire.stop();
    expect(failures).toEqual([]);
    // Not all of them hit an idle agent.
    expect(enrolledAtKill[0], `pods enrolled at each kill: ${enrolledAtKill}, ${Date.now() - began} ms`).toBeLessThan(
      PODS,
    );
    expect(requests).toBeGreaterThan(50);
    expect(bytes.includes(MARKER)).toBe(false);
    expect(bytes.length).toBeGreaterThan(1000);
  });
});
