// SPDX-License-Identifier: Apache-2.0
import { httpGet } from "./probe.ts";
import { until } from "./until.ts";

/** An agent as its probes and metrics show it, from inside its own network namespace. */
export class AgentView {
  constructor(private readonly netnsPath: () => string | undefined) {}

  /** What /readyz says; status 0 when nobody answers. */
  async readiness(): Promise<{ readonly status: number; readonly body: string }> {
    return (await this.get(8000, "/readyz")) ?? { status: 0, body: "" };
  }

  async ready(): Promise<boolean> {
    return (await this.readiness()).status === 200;
  }

  /** Text of /metrics; empty when nobody answers. */
  async metrics(): Promise<string> {
    return (await this.get(15014, "/metrics"))?.body ?? "";
  }

  /** Waits until this many ztunnels have the agent's snapshot, by the agent's own metric. */
  async ztunnelsConnected(count: number): Promise<void> {
    await until(`${count} ztunnels are connected`, async () => {
      const body = await this.metrics();
      const connected = /^ztunnel_connected (\d+)$/m.exec(body)?.[1];
      const snapshots = /^ambient_cni_zds_messages_total\{type="snapshot_sent",result="acked"\} (\d+)$/m.exec(
        body,
      )?.[1];
      return Number(connected) === count && Number(snapshots ?? 0) >= count;
    });
  }

  /** The engine that pods get, by the agent's own metric. */
  async engine(): Promise<string> {
    let engine: string | undefined;
    await until("the agent tells its engine", async () => {
      engine = /^ambient_cni_engine\{engine="(\w+)",reason="[^"]*"\} 1$/m.exec(await this.metrics())?.[1];
      return engine !== undefined;
    });
    return engine ?? "none";
  }

  private async get(port: number, path: string): Promise<{ status: number; body: string } | undefined> {
    const netns = this.netnsPath();
    if (netns === undefined) return undefined;
    return httpGet(netns, "127.0.0.1", port, path).catch(() => undefined);
  }
}
