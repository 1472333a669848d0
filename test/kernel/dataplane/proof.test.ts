// SPDX-License-Identifier: Apache-2.0
// Proofs of capture: they hold for a captured pod with every engine, and find what is wrong with another.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { CaptureSpec } from "../../../src/core/ports/dataplane.ts";
import type { Proof } from "../../../src/core/ports/proof.ts";
import type { NodeDataplane } from "../../../src/dataplane/dataplane.ts";
import { PodProver } from "../../../src/dataplane/proof/prover.ts";
import { native } from "../../../src/native/load.ts";
import { specOf, startDataplane } from "../../support/lab-dataplane.ts";
import { EBPF, ENGINES, NFTABLES } from "../../support/lab-engines.ts";
import { expectAlive, TrafficLab } from "../../support/lab-traffic.ts";
import { inNetns } from "../../support/netns-lab.ts";
import { ourFds } from "../../support/process-fds.ts";

let dataplane: NodeDataplane;
let traffic: TrafficLab;

/** The client's netns stands for the node's: it has the other end of the pod's veth pair. */
const prove = (spec: CaptureSpec, probesFromHost = false): Promise<readonly Proof[]> =>
  new PodProver({ binding: native(), host: traffic.lab.client.netns, probesFromHost }).prove(
    traffic.lab.pod.netns,
    spec,
  );
const results = (proofs: readonly Proof[]) =>
  Object.fromEntries(proofs.map((proof) => [`${proof.row} ${proof.family}`, proof.result]));
const evidence = (proofs: readonly Proof[], row: string) =>
  proofs.filter((proof) => proof.row === row).map((proof) => `${proof.result}: ${proof.evidence}`);

const ALL = Object.fromEntries(
  ([4, 6] as const).flatMap((family) => [
    ...["outbound", "inbound", "hbone", "own-ports", "itself", "dns-tcp", "dns-udp"].map((row) => [
      `${row} ${family}`,
      "proved",
    ]),
    [`probe ${family}`, "skipped"],
  ]),
);

const socketsOf = () => {
  const { pod } = traffic.lab;
  return native()
    .sockets(pod.netns.fd, { protocol: "tcp" })
    .filter(({ state }) => state !== 6)
    .map(({ src, srcPort, dst, dstPort, state }) => `${src}:${srcPort} ${dst}:${dstPort} ${state}`)
    .sort();
};

beforeEach(async () => {
  traffic = await TrafficLab.create();
});
afterEach(() => traffic.close());

describe.each(ENGINES)("$name", (engine) => {
  beforeAll(async () => {
    dataplane = await startDataplane(native(), engine);
  });
  afterAll(() => dataplane.close());

  test("every row is proved of a captured pod, and no socket stays", async () => {
    const { pod } = traffic.lab;
    const spec = specOf(traffic.lab);
    await dataplane.capture(pod.netns, spec);
    const lasting = await traffic.openAll();
    const [before, fds] = [socketsOf(), ourFds()];
    const proofs = await prove(spec);
    // The lab's ztunnel is in this process: what it had begun for the proof is closed in its own time.
    await expect.poll(() => ourFds().length).toBeLessThanOrEqual(fds.length);
    expect(results(proofs), JSON.stringify(proofs)).toEqual(ALL);
    await expect.poll(socketsOf).toEqual(before);
    await expectAlive(lasting);
    await dataplane.release(pod.netns);
  });

  test("of an ingress, its inbound is proved to be left alone", async () => {
    const { pod } = traffic.lab;
    const spec = specOf(traffic.lab, { bypassInbound: true });
    await dataplane.capture(pod.netns, spec);
    expect(results(await prove(spec))).toEqual(ALL);
    expect(evidence(await prove({ ...spec, bypassInbound: false }), "inbound")[0]).toMatch(/^failed: .*past ztunnel/);
    await dataplane.release(pod.netns);
  });

  test("a probe that goes by way of ztunnel is found", async () => {
    const { pod } = traffic.lab;
    const spec = specOf(traffic.lab);
    await dataplane.capture(pod.netns, spec);
    expect(evidence(await prove(spec, true), "probe")).toEqual([
      expect.stringMatching(
        /^failed: a connection of the node's (was answered by somebody else|came by way of ztunnel)$/,
      ),
      expect.stringMatching(
        /^failed: a connection of the node's (was answered by somebody else|came by way of ztunnel)$/,
      ),
    ]);
    await dataplane.release(pod.netns);
  });

  test("without a ztunnel outbound calls are refused, and that is no proof", async () => {
    const { pod } = traffic.lab;
    const spec = specOf(traffic.lab);
    await dataplane.capture(pod.netns, spec);
    await traffic.ztunnel.close();
    const found = results(await prove(spec));
    expect(found["outbound 4"]).toBe("failed");
    expect(found["inbound 6"]).toBe("failed");
    expect(found["itself 4"]).toBe("proved");
    await dataplane.release(pod.netns);
  });
});

test("of a pod that is not captured nothing but itself is proved", async () => {
  const proofs = await prove(specOf(traffic.lab));
  for (const { row, family, result } of proofs) {
    // Both are so without any capture.
    const always = row === "itself" || row === "hbone" || row === "probe";
    if (!always) expect(`${row} ${family} ${result}`).toBe(`${row} ${family} failed`);
  }
  expect(evidence(proofs, "inbound")[0]).toMatch(
    /failed: a remote's call reached a listener of the pod's own .*, past ztunnel/,
  );
  expect(evidence(proofs, "own-ports")[0]).toMatch(/failed: .*:15001 is not refused: answered/);
});

describe("sabotage", () => {
  test.each([
    ["nft flush chain inet ambient-cni nat-output", ["outbound 4", "outbound 6", "dns-tcp 4", "dns-udp 6"]],
    ["nft flush chain inet ambient-cni nat-prerouting", ["inbound 4", "inbound 6"]],
    ["nft flush chain inet ambient-cni direct-call", ["own-ports 4", "own-ports 6"]],
    ["nft delete table inet ambient-cni", ["outbound 4", "inbound 4", "outbound 6", "inbound 6"]],
  ])("nftables: %s", async (command, broken) => {
    const { pod } = traffic.lab;
    const nftables = await startDataplane(native(), NFTABLES);
    const spec = specOf(traffic.lab);
    await nftables.capture(pod.netns, spec);
    await inNetns(pod.netns, ...command.split(" "));
    const found = results(await prove(spec));
    for (const row of broken) expect(`${row} ${found[row]}`).toBe(`${row} failed`);
    expect(found["itself 4"]).toBe("proved");
    await nftables.release(pod.netns);
    nftables.close();
  });

  test.each([
    ["tc filter del dev eth0 ingress", ["inbound 4", "inbound 6"]],
    ["tc qdisc del dev eth0 clsact", ["inbound 4", "inbound 6"]],
  ])("ebpf: %s", async (command, broken) => {
    const { pod } = traffic.lab;
    const ebpf = await startDataplane(native(), EBPF);
    const spec = specOf(traffic.lab);
    await ebpf.capture(pod.netns, spec);
    await inNetns(pod.netns, ...command.split(" "));
    const found = results(await prove(spec));
    for (const row of broken) expect(`${row} ${found[row]}`).toBe(`${row} failed`);
    expect(found["outbound 4"]).toBe("proved");
    await ebpf.release(pod.netns);
    ebpf.close();
  });
});

test("of a runtime that handles packets itself nothing is claimed", async () => {
  const spec = specOf(traffic.lab, { ips: ["10.77.0.9"] });
  const proofs = await prove(spec);
  expect(proofs.filter(({ family }) => family === 4).map(({ result }) => result)).toEqual(["skipped", "skipped"]);
  expect(
    proofs.some(({ result }) => result === "proved" || result === "failed") &&
      proofs.every(({ row }) => row !== "itself"),
  ).toBe(false);
});
