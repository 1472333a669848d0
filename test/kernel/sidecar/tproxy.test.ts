// SPDX-License-Identifier: Apache-2.0
// TPROXY mode, with every writer: the client's address is kept, all the way to the application.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { validate } from "../../support/lab-sidecar.ts";
import { inNetns, ipOf } from "../../support/netns-lab.ts";
import { APP, BEHIND, ELSEWHERE, FAMILIES, Ground, OTHER_APP, SERVICE, VIP, WRITERS } from "./ground.ts";

const TRAFFIC = "traffic.sidecar.istio.io";
const TPROXY = { "sidecar.istio.io/interceptionMode": "TPROXY" };
const PASSTHROUGH = { 4: "127.0.0.6", 6: "::6" } as const;
const LOOPBACK = { 4: "127.0.0.1", 6: "::1" } as const;

describe.each(WRITERS)("$name", (writer) => {
  let ground: Ground;
  beforeAll(async () => {
    ground = await Ground.create(writer, true);
  });
  afterAll(() => ground.close());

  const pod = (family: 4 | 6) => ipOf(ground.lab.pod, family);
  const remote = (family: 4 | 6) => ipOf(ground.lab.client, family);
  const annotated = (name: string, value: string) => ground.redirect({ annotations: { ...TPROXY, [name]: value } });

  describe.each(FAMILIES)("IPv%i", (family) => {
    beforeAll(async () => {
      const seen = await ground.redirect({ annotations: TPROXY });
      expect(seen).toEqual({ mode: "redirected", engine: writer.engine, differences: [] });
    });

    test("policy rule and route are there", async () => {
      const ip = family === 4 ? "ip" : "ip -6";
      const rules = await inNetns(ground.lab.pod.netns, "sh", "-c", `${ip} rule; ${ip} route show table 133`);
      expect(rules).toMatch(/from all fwmark 0x539 lookup 133/);
      expect(rules).toMatch(/local default dev lo/);
    });
    test("inbound: by 15006, and the application sees the client", async () => {
      expect(await ground.fromRemote(family, APP)).toEqual({
        who: "app",
        client: remote(family),
        via: [`15006 ${pod(family)}:${APP}`],
      });
      expect(ground.sidecar.peersOf({ address: pod(family), port: APP })[0]).toMatch(`${remote(family)}:`);
    });
    test("inbound to any other address of the pod just so", async () => {
      const address = BEHIND.pod[family];
      const via = [`15006 ${address}:${APP}`];
      expect(await ground.fromBehind(family, address, APP)).toEqual({ who: "app", client: BEHIND.other[family], via });
    });
    test("the tunnel port and excluded ports are left alone", async () => {
      expect(await ground.fromRemote(family, 15008)).toMatchObject({
        who: "tunnel",
        via: [`15008 ${pod(family)}:15008`],
      });
      expect(await ground.fromRemote(family, 15020)).toEqual({ who: "status", client: remote(family), via: [] });
    });
    test("outbound: by 15001 as in REDIRECT mode, and answers come back", async () => {
      expect(await ground.fromApp(family, remote(family), SERVICE)).toEqual({
        who: "remote",
        client: pod(family),
        via: [`15001 ${remote(family)}:${SERVICE}`],
      });
    });
    test("a service that is the pod itself: out by 15001, and in again by 15006", async () => {
      expect(await ground.fromApp(family, VIP[family], SERVICE)).toMatchObject({
        who: "app",
        client: pod(family),
        via: [`15001 ${VIP[family]}:${SERVICE}`, `15006 ${pod(family)}:${APP}`],
      });
    });
    test("the application's calls to its own addresses stay with it", async () => {
      expect(await ground.fromApp(family, pod(family), APP)).toEqual({ who: "app", client: pod(family), via: [] });
      expect(await ground.fromApp(family, LOOPBACK[family], APP)).toMatchObject({ who: "app", via: [] });
      const bind = { address: PASSTHROUGH[family], port: 0 };
      expect(await ground.fromApp(family, pod(family), APP, { bind })).toMatchObject({ who: "app", via: [] });
    });
    test("without a transparent listener inbound is closed, never let in", async () => {
      using lab = ground.twin();
      await ground.redirector.redirect(lab.pod.netns, ground.current, "test/twin");
      expect(await ground.fromTwin(lab, family)).toMatch(/ECONNREFUSED|ETIMEDOUT/);
    });
  });

  test("the pod's own check passes", async () => {
    await ground.redirect({ annotations: TPROXY });
    // Its listeners are where the sidecar's are: it runs in a pod of its own.
    using lab = ground.twin();
    await ground.redirector.redirect(lab.pod.netns, ground.current, "test/twin");
    const statuses = FAMILIES.map((family) => validate(lab.pod.netns, family));
    expect(await Promise.all(statuses)).toEqual([0, 0]);
  });

  describe.each(FAMILIES)("settings, IPv%i", (family) => {
    test("includeInboundPorts", async () => {
      await annotated(`${TRAFFIC}/includeInboundPorts`, String(APP));
      expect(await ground.fromRemote(family, APP)).toMatchObject({
        client: remote(family),
        via: [`15006 ${pod(family)}:${APP}`],
      });
      expect(await ground.fromRemote(family, OTHER_APP)).toEqual({ who: "other app", client: remote(family), via: [] });
      await annotated(`${TRAFFIC}/includeInboundPorts`, "");
      expect(await ground.fromRemote(family, APP)).toMatchObject({ who: "app", via: [] });
    });
    test("excludeInboundPorts", async () => {
      await annotated(`${TRAFFIC}/excludeInboundPorts`, String(APP));
      expect(await ground.fromRemote(family, APP)).toMatchObject({ who: "app", via: [] });
      expect(await ground.fromRemote(family, OTHER_APP)).toMatchObject({ via: [`15006 ${pod(family)}:${OTHER_APP}`] });
    });
    test("excludeInterfaces: left alone, both ways", async () => {
      await annotated(`${TRAFFIC}/excludeInterfaces`, "net1");
      const client = BEHIND.other[family];
      expect(await ground.fromBehind(family, BEHIND.pod[family], APP)).toEqual({ who: "app", client, via: [] });
      expect(await ground.fromApp(family, client, SERVICE)).toMatchObject({ who: "behind", via: [] });
      expect(await ground.fromRemote(family, APP)).toMatchObject({ via: [`15006 ${pod(family)}:${APP}`] });
    });
    test("what arrives at rerouted interfaces is outbound", async () => {
      await annotated("istio.io/reroute-virtual-interfaces", "net1");
      expect(await ground.fromBehind(family, ELSEWHERE[family], SERVICE)).toMatchObject({
        who: "remote",
        via: [`15001 ${ELSEWHERE[family]}:80`],
      });
    });
  });
});
