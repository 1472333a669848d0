// SPDX-License-Identifier: Apache-2.0
// The leak guard: whatever the connect hooks have not seen does not leave a captured pod as a SYN.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { ZTUNNEL_MARK } from "../../../../src/core/constants.ts";
import type { CaptureSpec } from "../../../../src/core/ports/dataplane.ts";
import { native } from "../../../../src/native/load.ts";
import type { Cgroup } from "../../../../src/sys/cgroup.ts";
import { specOf } from "../../../support/lab-dataplane.ts";
import { Call, EchoServer, outcome } from "../../../support/lab-peer.ts";
import { LabPrograms } from "../../../support/lab-programs.ts";
import { SplitNode } from "../../../support/lab-split-node.ts";
import { LabZtunnel } from "../../../support/lab-ztunnel.ts";
import { ipOf, NetnsLab } from "../../../support/netns-lab.ts";

const SERVICE = 80;
const CONTROL_PORT = 9999;

interface Frame {
  readonly shape: string;
  readonly source?: string;
  readonly destination?: string;
  readonly mark?: number;
}

let node: SplitNode;
let programs: LabPrograms;
let lab: NetnsLab;
let ztunnel: LabZtunnel;
let remote: EchoServer;

beforeAll(async () => {
  programs = await LabPrograms.compile(["lab-frame"]);
  node = await SplitNode.start();
});
afterAll(() => {
  node.close();
  programs[Symbol.dispose]();
});
beforeEach(async () => {
  lab = NetnsLab.create();
  ztunnel = await LabZtunnel.start(lab.pod.netns);
  remote = await EchoServer.start(lab.client.netns, "remote", { family: 6, bind: { address: "::", port: SERVICE } });
});
afterEach(async () => {
  await remote.close();
  await ztunnel.close();
  lab.close();
});

const capture = (changes: Partial<CaptureSpec> = {}) => node.capture(lab.pod.netns, specOf(lab, changes));
const counters = () => node.engine.counters(lab.pod.netns);

/** Sends frames out of the pod's eth0; says which of them reached the other end. */
async function escaped(family: 4 | 6, frames: readonly Frame[], cgroup: Cgroup = node.elsewhere): Promise<Frame[]> {
  const { mac = "" } =
    native()
      .links(lab.client.netns.fd)
      .find(({ name }) => name === "veth0") ?? {};
  const line = ({ shape, source, destination, mark = 0 }: Frame, port: number) =>
    `${shape} ${mark} ${source ?? ipOf(lab.pod, family)} ${port} ${destination ?? ipOf(lab.client, family)} ${SERVICE}`;
  const lines = [...frames.map((frame, i) => line(frame, 10_000 + i)), line({ shape: "ack" }, CONTROL_PORT)];
  const argv = ["lab-frame", "veth0", `/proc/${process.pid}/fd/${lab.pod.netns.fd}`, "eth0", mac] as const;
  const ports = (await programs.run(lab.client.netns, cgroup, [...argv], lines)).map(Number);
  expect(ports.pop(), "a frame that is no SYN arrives").toBe(CONTROL_PORT);
  return ports.flatMap((port) => frames[port - 10_000] ?? []);
}

describe.each([4, 6] as const)("IPv%i", (family) => {
  const shapes =
    family === 4
      ? ["plain", "synfin", "options", "short", "short-options", "fragment", "tag", "tags", "made-up"]
      : [
          "plain",
          "synfin",
          "options",
          "hopbyhop",
          "routing",
          "atomic",
          "chain",
          "short",
          "short-options",
          "fragment",
          "tag",
          "tags",
          "made-up",
        ];
  const others =
    family === 4 ? ["10.66.0.77", "192.0.2.7", "127.0.0.1"] : ["fd66::77", "2001:db8::7", "fe80::77", "::1"];
  const all = (): Frame[] => [
    ...shapes.map((shape) => ({ shape })),
    ...others.map((source) => ({ shape: "plain", source })),
  ];

  test("every shape of SYN leaves a pod that is not captured: the watcher sees them", async () => {
    expect(await escaped(family, all())).toEqual(all());
  });

  test("no shape of SYN leaves a captured pod from a process that the hooks don't see", async () => {
    await capture();
    expect(await escaped(family, all())).toEqual([]);
    const { outbound_leak, outbound_unparsed } = counters();
    // A tag hides the addresses, and a source address of another's is nobody's of ours to count for.
    const cut = shapes.filter((shape) => shape.startsWith("short")).length;
    expect({ outbound_leak, outbound_unparsed }).toEqual({
      outbound_leak: shapes.length - cut,
      outbound_unparsed: cut,
    });
  });

  test("nor from the pod's shadow or a spread address, which look like ztunnel's", async () => {
    await capture();
    const found = native()
      .routes(lab.pod.netns.fd, family, 255)
      .map(({ dst }) => dst)
      .filter((dst) => (family === 4 ? /^255\.(?!255\.)/ : /^fd16:9254:7127:[12]:/).test(dst));
    expect(found).toHaveLength(2);
    expect(
      await escaped(
        family,
        found.map((source) => ({ shape: "plain", source })),
      ),
    ).toEqual([]);
    expect(counters().outbound_leak).toBe(1);
  });

  test("nor with ztunnel's mark from anybody but ztunnel", async () => {
    await capture();
    const forged = [{ shape: "plain", mark: ZTUNNEL_MARK }];
    expect(await escaped(family, forged)).toEqual([]);
    expect(await escaped(family, forged, node.pods)).toEqual([]);
    expect(counters().outbound_forged_mark).toBe(2);
    expect(await escaped(family, forged, node.ztunnel)).toEqual(forged);
  });

  test("an excluded destination is reached, from a socket and by frames alike", async () => {
    await capture({ excludeOutboundCidrs: [`${ipOf(lab.client, family)}/${family === 4 ? 32 : 128}`] });
    expect(await escaped(family, [{ shape: "plain" }])).toEqual([{ shape: "plain" }]);
  });

  test("a connection older than capture goes on, a new one by an unhooked socket waits in vain", async () => {
    const options = { timeout: 300 };
    const old = await Call.open(lab.pod.netns, family, ipOf(lab.client, family), SERVICE);
    expect((await old.greeting()).name).toBe("remote");
    await capture();
    // This process is in ztunnel's cgroup: no hook sees its sockets, and without the mark it is not ztunnel.
    expect(await outcome(Call.open(lab.pod.netns, family, ipOf(lab.client, family), SERVICE, options))).toBe(
      "ETIMEDOUT",
    );
    expect(await old.echo("old")).toBe("old");
    expect(counters().outbound_leak).toBe(1);
    expect(ztunnel.accepted).toEqual([]);
    old.close();
  });
});
