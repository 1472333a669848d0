// SPDX-License-Identifier: Apache-2.0
// 200 captured pods, and the 5 s that kubelet gives under older charts.
import { expect, test } from "vitest";
import { until } from "../../src/sandbox/until.ts";
import { LABEL, REDIRECTION, withSandbox } from "../support/sandbox.ts";

const PODS = 200;
const AT_ONCE = 8;
/** Kubelet's 5 s. */
const IN_TIME_MS = 4900;

test("200 pods stay captured, are adopted and are released, each within kubelet's grace period", async () => {
  await withSandbox({ chart: "1.24" }, async (sandbox) => {
    const names = Array.from({ length: PODS }, (_, index) => `p${index}`);
    sandbox.api.put({ kind: "Namespace", metadata: { name: "many" } });
    const todo = [...names];
    const worker = async () => {
      for (let name = todo.pop(); name !== undefined; name = todo.pop()) {
        await sandbox.kubelet.run({ namespace: "many", name, program: "sleep" });
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    const announced = () => names.filter((name) => sandbox.annotation("many", name, REDIRECTION) === "enabled").length;
    const exempt = async () => {
      const { stdout } = await sandbox.node.run(["nft", "list", "ruleset"], { timeoutMs: 5000 });
      return new Set(stdout.match(/10\.66\.0\.\d+/g)).size;
    };
    /** Ends the agent without a successor; how many pods it left captured, by its own word and by the host's set. */
    const remove = async () => {
      sandbox.daemonSet.delete();
      const milliseconds = await sandbox.endAgent("SIGTERM");
      expect(milliseconds).toBeLessThan(IN_TIME_MS);
      sandbox.daemonSet.put();
      const last = sandbox.agentLog().split("ambient-cni starting").at(-1) ?? "";
      // Said pod by pod where the time was over, and once more with what they need on the host where there was some left.
      const said = [
        /pods could not be released and stay captured\s+count=(\d+)/,
        /pods stay captured, and.*captured=(\d+)/,
      ];
      const captured = Math.max(...said.map((words) => Number(words.exec(last)?.[1] ?? 0)));
      expect(await exempt()).toBe(captured);
      console.log(`${PODS - captured} of ${PODS} pods released in ${Math.round(milliseconds)} ms`);
      return captured;
    };
    sandbox.describeMesh([], []);
    sandbox.label("many", LABEL, "ambient");
    for (const engine of ["ebpf", "nftables"]) {
      await sandbox.startAgent(true, { AMBIENT_CNI_ENGINE: engine });
      if (sandbox.ztunnels.length === 0) sandbox.startZtunnel();
      await sandbox.ztunnelsConnected(1);
      await until("all are captured", () => announced() === PODS, 60_000);
      expect(await remove()).toBe(PODS);
      expect(announced()).toBe(PODS);
      await sandbox.startAgent(true, { AMBIENT_CNI_ENGINE: engine, AMBIENT_CNI_UNCAPTURE_ON_REMOVAL: "true" });
      await sandbox.ztunnelsConnected(1);
      // A machine that is too busy for all of them leaves some; they are said, and keep what they need.
      await remove();
    }
    await sandbox.startAgent();
    await sandbox.ztunnelsConnected(1);
    await until("all are captured", () => announced() === PODS, 60_000);
    sandbox.daemonSet.put({ image: "docker.io/istio/install-cni:1.30.0" });
    const milliseconds = await sandbox.endAgent("SIGTERM");
    expect(milliseconds).toBeLessThan(IN_TIME_MS);
    const handedOver = /pods handed over to istio-cni\s+pods=(\d+)/.exec(sandbox.agentLog())?.[1];
    console.log(`${handedOver} of ${PODS} pods handed over in ${Math.round(milliseconds)} ms`);
    expect(await exempt()).toBe(PODS);
  });
});
