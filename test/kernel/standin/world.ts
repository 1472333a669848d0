// SPDX-License-Identifier: Apache-2.0
// One node with a ztunnel in it: `client` and `server` captured, `outsider` and `plain` not.
import { writeFileSync } from "node:fs";
import { CertificateAuthority } from "../../../src/sandbox/identity/authority.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";
import { type AgentConnection, TestAgent } from "./agent.ts";
import { meshOf } from "./mesh.ts";
import { TestNode, type TestPod } from "./pods.ts";
import { ZtunnelProcess } from "./process.ts";

export const CAPTURED = ["client", "server"];

export class World implements AsyncDisposable {
  private constructor(
    readonly scratch: ScratchDir,
    readonly node: TestNode,
    readonly agent: TestAgent,
    readonly ztunnel: ZtunnelProcess,
    readonly zds: AgentConnection,
  ) {}

  /** Everything captured, ztunnel ready. `outsider` is unknown to the mesh, `plain` a TCP workload of it. */
  static async create(env: Readonly<Record<string, string>> = {}): Promise<World> {
    const scratch = new ScratchDir();
    const node = await TestNode.create("client", "server", "outsider", "plain");
    writeFileSync(scratch.file("mesh.yaml"), meshOf(node, CAPTURED, ["outsider"]));
    writeFileSync(scratch.file("resolv.conf"), `nameserver ${node.pod("outsider").ipv4}\n`);
    writeFileSync(scratch.file("authority.pem"), CertificateAuthority.create().toPem(), { mode: 0o600 });
    const agent = new TestAgent(scratch.file("zds.sock"));
    const ztunnel = World.ztunnelOf(scratch, node, env);
    const zds = await agent.accept();
    const world = new World(scratch, node, agent, ztunnel, zds);
    await world.introduce(zds);
    for (const name of CAPTURED) await node.capture(name);
    return world;
  }

  /** One more ztunnel, which has been told of every captured pod. */
  async another(
    env: Readonly<Record<string, string>> = {},
  ): Promise<{ ztunnel: ZtunnelProcess; zds: AgentConnection }> {
    const ztunnel = World.ztunnelOf(this.scratch, this.node, env);
    const zds = await this.agent.accept();
    await this.introduce(zds);
    return { ztunnel, zds };
  }

  pod(name: string): TestPod {
    return this.node.pod(name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.ztunnel[Symbol.asyncDispose]();
    this.agent[Symbol.dispose]();
    this.node[Symbol.dispose]();
    this.scratch[Symbol.dispose]();
  }

  private async introduce(zds: AgentConnection): Promise<void> {
    for (const name of CAPTURED) {
      const error = await zds.add(this.pod(name));
      if (error !== "") throw new Error(error);
    }
    await zds.snapshotSent();
  }

  private static ztunnelOf(scratch: ScratchDir, node: TestNode, env: Readonly<Record<string, string>>): ZtunnelProcess {
    return new ZtunnelProcess(
      {
        INPOD_UDS: scratch.file("zds.sock"),
        LOCAL_XDS_PATH: scratch.file("mesh.yaml"),
        // What istiod is to real ztunnels: without it each stand-in would trust itself alone.
        STANDIN_CA: scratch.file("authority.pem"),
        ZTUNNEL_DNS_UPSTREAM: `${node.pod("outsider").ipv4}:53`,
        ...env,
      },
      scratch.file("resolv.conf"),
    );
  }
}
