// SPDX-License-Identifier: Apache-2.0
// ztunnel reaches the application with the client's address and a port of its own choice. When it picks
// the client's port, both legs have one 4-tuple; upstream's rules then lose one of them.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { NodeDataplane } from "../../../src/dataplane/dataplane.ts";
import { native } from "../../../src/native/load.ts";
import { specOf, startDataplane, withoutSysctls } from "../../support/lab-dataplane.ts";
import { ENGINES } from "../../support/lab-engines.ts";
import { Call, EchoServer } from "../../support/lab-peer.ts";
import { LabZtunnel, type LabZtunnelOptions } from "../../support/lab-ztunnel.ts";
import { ipOf, NetnsLab } from "../../support/netns-lab.ts";

const APP = 8080;
const CLIENTS = 40;
const FIRST_PORT = 50_000;

describe.each(ENGINES)("$name", (engine) => {
  describe.each([
    ["untracked", native()],
    ["tracked, where sysctls are denied", withoutSysctls],
  ] as const)("spoofed legs %s", (form, binding) => {
    let dataplane: NodeDataplane;
    let lab: NetnsLab;
    let app: EchoServer;
    let ztunnel: LabZtunnel;

    beforeAll(async () => {
      dataplane = await startDataplane(binding, engine);
    });
    afterAll(() => dataplane.close());
    beforeEach(async () => {
      lab = NetnsLab.create();
      app = await EchoServer.start(lab.pod.netns, "app", { family: 6, bind: { address: "::", port: APP } });
    });
    afterEach(async () => {
      await app.close();
      await ztunnel.close();
      lab.close();
    });

    async function fortyClients(family: 4 | 6, options: LabZtunnelOptions): Promise<readonly Call[]> {
      ztunnel = await LabZtunnel.start(lab.pod.netns, options);
      await dataplane.capture(lab.pod.netns, specOf(lab));
      const calls: Call[] = [];
      for (let i = 0; i < CLIENTS; i++) {
        const bind = { address: ipOf(lab.client, family), port: FIRST_PORT + i };
        calls.push(await Call.open(lab.client.netns, family, ipOf(lab.pod, family), APP, { bind }));
      }
      return calls;
    }

    async function expectAllAlive(calls: readonly Call[], family: 4 | 6): Promise<void> {
      for (const call of calls) {
        const { name, remote } = await call.greeting();
        expect({ name, from: remote.address }).toEqual({ name: "app", from: ipOf(lab.client, family) });
      }
      // Twice, in both orders: a packet that meets the wrong leg cuts one that was alive before.
      for (const call of calls) expect(await call.echo("forth")).toBe("forth");
      for (const call of [...calls].reverse()) expect(await call.echo("back")).toBe("back");
      expect(ztunnel.accepted).toHaveLength(CLIENTS);
      for (const call of calls) call.close();
    }

    test.each([4, 6] as const)("IPv%i: every leg with its own client's port, 40 of 40", async (family) => {
      const calls = await fortyClients(family, { legPort: (client) => client.port });
      await expectAllAlive(calls, family);
      expect(ztunnel.failures).toEqual([]);
    });

    test.each([4, 6] as const)("IPv%i: every leg with the next client's port, 40 of 40", async (family) => {
      const calls = await fortyClients(family, { legPort: (client) => client.port + 1 });
      await expectAllAlive(calls, family);
      expect(ztunnel.failures).toEqual([]);
    });

    test.each([4, 6] as const)("IPv%i: a narrow range of ports, 40 of 40", async (family) => {
      native().sysctlSet(lab.pod.netns.fd, "net/ipv4/ip_local_port_range", "50000 50060");
      const calls = await fortyClients(family, {});
      await expectAllAlive(calls, family);
    });

    test("the self-test says what it costs", () => {
      const result = dataplane.tests.find(({ works }) => works);
      const other = form !== "untracked" && engine.needsSysctls ? "nftables" : engine.engine;
      expect(result?.engine).toBe(other);
      if (form === "untracked")
        expect(result?.losses).toEqual(engine.losses.map((loss) => expect.stringContaining(loss)));
      else expect(result?.losses.join("\n")).toContain("net/ipv4/tcp_fwmark_accept: EROFS");
    });
  });
});
