// SPDX-License-Identifier: Apache-2.0
// REDIRECT mode, with every writer: each line of what must be true of a sidecar pod's traffic, by real
// connections, with who answered and which way they took.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { native } from "../../../src/native/load.ts";
import { validate } from "../../support/lab-sidecar.ts";
import { ipOf } from "../../support/netns-lab.ts";
import { APP, BEHIND, ELSEWHERE, FAMILIES, Ground, OTHER_APP, SERVICE, VIP, WRITERS } from "./ground.ts";

const TRAFFIC = "traffic.sidecar.istio.io";
const PASSTHROUGH = { 4: "127.0.0.6", 6: "::6" } as const;
const LOOPBACK = { 4: "127.0.0.1", 6: "::1" } as const;

describe.each(WRITERS)("$name", (writer) => {
  let ground: Ground;
  beforeAll(async () => {
    ground = await Ground.create(writer);
  });
  afterAll(() => ground.close());

  const pod = (family: 4 | 6) => ipOf(ground.lab.pod, family);
  const remote = (family: 4 | 6) => ipOf(ground.lab.client, family);
  const annotated = (name: string, value: string) => ground.redirect({ annotations: { [name]: value } });

  describe.each(FAMILIES)("by default, IPv%i", (family) => {
    beforeAll(async () => {
      expect(await ground.redirect()).toEqual({ mode: "redirected", engine: writer.engine, differences: [] });
    });

    test("inbound: by 15006, to the application from the passthrough address", async () => {
      expect(await ground.fromRemote(family, APP)).toEqual({
        who: "app",
        client: PASSTHROUGH[family],
        via: [`15006 ${pod(family)}:${APP}`],
      });
      expect(ground.sidecar.peersOf({ address: pod(family), port: APP })[0]).toMatch(`${remote(family)}:`);
    });
    test("inbound to any other address of the pod just so", async () => {
      const address = BEHIND.pod[family];
      expect(await ground.fromBehind(family, address, APP)).toMatchObject({
        who: "app",
        via: [`15006 ${address}:${APP}`],
      });
    });
    test("the tunnel port is left alone", async () => {
      expect(await ground.fromRemote(family, 15008)).toMatchObject({
        who: "tunnel",
        via: [`15008 ${pod(family)}:15008`],
      });
    });
    test("excluded inbound ports reach the pod directly", async () => {
      expect(await ground.fromRemote(family, 15020)).toEqual({ who: "status", client: remote(family), via: [] });
    });
    test("a port where nobody listens is closed", async () => {
      const { who, via } = await ground.fromRemote(family, 9999);
      expect([who, via]).toEqual(["closed", [`15006 ${pod(family)}:9999`]]);
    });
    test("outbound: by 15001, then from the proxy without coming back", async () => {
      expect(await ground.fromApp(family, remote(family), SERVICE)).toEqual({
        who: "remote",
        client: pod(family),
        via: [`15001 ${remote(family)}:${SERVICE}`],
      });
    });
    test("excluded outbound ports are left alone", async () => {
      expect(await ground.fromApp(family, remote(family), 15020)).toMatchObject({ who: "remote", via: [] });
    });
    test("a service that is the pod itself: out by 15001, and in again by 15006", async () => {
      expect(await ground.fromApp(family, VIP[family], SERVICE)).toEqual({
        who: "app",
        client: PASSTHROUGH[family],
        via: [`15001 ${VIP[family]}:${SERVICE}`, `15006 ${pod(family)}:${APP}`],
      });
    });
    test("the application's calls to its own addresses stay with it", async () => {
      expect(await ground.fromApp(family, pod(family), APP)).toEqual({ who: "app", client: pod(family), via: [] });
      expect(await ground.fromApp(family, LOOPBACK[family], APP)).toMatchObject({ who: "app", via: [] });
    });
    test("from the passthrough address nothing is redirected", async () => {
      const bind = { address: PASSTHROUGH[family], port: 0 };
      expect(await ground.fromApp(family, pod(family), APP, { bind })).toMatchObject({ who: "app", via: [] });
    });
    test("the proxy's user and its group each leave by themselves", async () => {
      for (const [uid, gid] of [
        [1337, 0],
        [0, 1337],
      ] as const) {
        ground.sidecar.forget();
        expect(await ground.fromOwner(uid, gid, "tcp", remote(family), String(SERVICE))).toBe("remote");
        expect(await ground.sidecar.seen()).toEqual([]);
      }
    });
    test("UDP is left alone, port 53 as well", async () => {
      const answer = await ground.fromOwner(0, 0, "udp", remote(family), "53");
      expect(answer).toBe(`nameserver:question from ${remote(family)} 53`);
    });
  });

  test("the pod's own check passes", async () => {
    await ground.redirect();
    // Its listeners are where the sidecar's are: it runs in a pod of its own.
    using lab = ground.twin();
    await ground.redirector.redirect(lab.pod.netns, ground.current, "test/twin");
    const statuses = FAMILIES.map((family) => validate(lab.pod.netns, family));
    expect(await Promise.all(statuses)).toEqual([0, 0]);
  });

  describe.each(FAMILIES)("settings, IPv%i", (family) => {
    test("user and group of the container istio-proxy, each by itself", async () => {
      const isRedirected = async (uid: number, gid: number) => {
        ground.sidecar.forget();
        expect(await ground.fromOwner(uid, gid, "tcp", remote(family), String(SERVICE))).toBe("remote");
        return (await ground.sidecar.seen()).length > 0;
      };
      // The stand-in itself stays the proxy by its other half.
      await ground.redirect({ uid: 4321 });
      expect([await isRedirected(4321, 0), await isRedirected(1337, 0)]).toEqual([false, true]);
      await ground.redirect({ gid: 8765 });
      expect([await isRedirected(0, 8765), await isRedirected(0, 1337)]).toEqual([false, true]);
    });
    test("includeInboundPorts: the others are left alone, excluded or not", async () => {
      await annotated(`${TRAFFIC}/includeInboundPorts`, `${APP},15020,15008`);
      expect(await ground.fromRemote(family, APP)).toMatchObject({ via: [`15006 ${pod(family)}:${APP}`] });
      expect(await ground.fromRemote(family, 15020)).toMatchObject({ via: [`15006 ${pod(family)}:15020`] });
      expect(await ground.fromRemote(family, OTHER_APP)).toEqual({ who: "other app", client: remote(family), via: [] });
      expect(await ground.fromRemote(family, 15008)).toMatchObject({ who: "tunnel" });
      await annotated(`${TRAFFIC}/includeInboundPorts`, "");
      expect(await ground.fromRemote(family, APP)).toEqual({ who: "app", client: remote(family), via: [] });
    });
    test("excludeInboundPorts", async () => {
      await annotated(`${TRAFFIC}/excludeInboundPorts`, String(APP));
      expect(await ground.fromRemote(family, APP)).toEqual({ who: "app", client: remote(family), via: [] });
      expect(await ground.fromRemote(family, OTHER_APP)).toMatchObject({ via: [`15006 ${pod(family)}:${OTHER_APP}`] });
      expect(await ground.fromRemote(family, 15020)).toMatchObject({ who: "status", via: [] });
    });
    test("excludeOutboundPorts, and not even a call to oneself then", async () => {
      await annotated(`${TRAFFIC}/excludeOutboundPorts`, "443,80");
      expect(await ground.fromApp(family, remote(family), SERVICE)).toMatchObject({ who: "remote", via: [] });
      expect(await ground.fromApp(family, remote(family), 443)).toMatchObject({ who: "remote", via: [] });
      expect(await ground.fromApp(family, remote(family), 15020)).toMatchObject({
        via: [`15001 ${remote(family)}:15020`],
      });
    });
    test("includeOutboundIPRanges and includeOutboundPorts", async () => {
      const range = family === 4 ? "10.66.0.0/16" : "fd66::/64";
      await annotated(`${TRAFFIC}/includeOutboundIPRanges`, range);
      expect(await ground.fromApp(family, remote(family), SERVICE)).toMatchObject({
        via: [`15001 ${remote(family)}:80`],
      });
      expect(await ground.fromApp(family, BEHIND.other[family], SERVICE)).toMatchObject({ who: "behind", via: [] });
      await ground.redirect({
        annotations: { [`${TRAFFIC}/includeOutboundIPRanges`]: "", [`${TRAFFIC}/includeOutboundPorts`]: "443" },
      });
      expect(await ground.fromApp(family, remote(family), SERVICE)).toMatchObject({ who: "remote", via: [] });
      expect(await ground.fromApp(family, remote(family), 443)).toMatchObject({ via: [`15001 ${remote(family)}:443`] });
    });
    test("excludeOutboundIPRanges wins over includeOutboundPorts", async () => {
      await ground.redirect({
        annotations: {
          [`${TRAFFIC}/excludeOutboundIPRanges`]: `10.66.0.1/32,${family === 4 ? "10.64.0.0/13" : "fd66::/64"},10.0.0.0/9`,
          [`${TRAFFIC}/includeOutboundPorts`]: "443",
        },
      });
      expect(await ground.fromApp(family, remote(family), 443)).toMatchObject({ who: "remote", via: [] });
      expect(await ground.fromApp(family, ELSEWHERE[family], SERVICE)).toMatchObject({
        who: "remote",
        via: [`15001 ${ELSEWHERE[family]}:80`],
      });
    });
    test("excludeInterfaces: left alone, both ways", async () => {
      await annotated(`${TRAFFIC}/excludeInterfaces`, "net0,net1");
      expect(await ground.fromBehind(family, BEHIND.pod[family], APP)).toEqual({
        who: "app",
        client: BEHIND.other[family],
        via: [],
      });
      expect(await ground.fromApp(family, BEHIND.other[family], SERVICE)).toMatchObject({ who: "behind", via: [] });
      expect(await ground.fromRemote(family, APP)).toMatchObject({ via: [`15006 ${pod(family)}:${APP}`] });
    });
    test.each(["istio.io/reroute-virtual-interfaces", `${TRAFFIC}/kubevirtInterfaces`])(
      "%s: what arrives there is outbound",
      async (name) => {
        await annotated(name, "net1");
        expect(await ground.fromBehind(family, ELSEWHERE[family], SERVICE)).toMatchObject({
          who: "remote",
          via: [`15001 ${ELSEWHERE[family]}:80`],
        });
        expect(await ground.fromRemote(family, APP)).toMatchObject({ via: [`15006 ${pod(family)}:${APP}`] });
      },
    );
    test("of rerouted traffic only what is in an included range", async () => {
      const range = family === 4 ? "198.51.100.0/24" : "2001:db8:9::/48";
      await ground.redirect({
        annotations: {
          "istio.io/reroute-virtual-interfaces": "net1",
          [`${TRAFFIC}/includeOutboundIPRanges`]: range,
        },
      });
      expect(await ground.fromBehind(family, ELSEWHERE[family], SERVICE)).toMatchObject({ who: "remote" });
      expect(await ground.fromBehind(family, BEHIND.pod[family], APP)).toMatchObject({ who: "app", via: [] });
    });
    test("owner groups: all but some, or only some", async () => {
      const call = async (gid: number) => {
        ground.sidecar.forget();
        expect(await ground.fromOwner(0, gid, "tcp", remote(family), String(SERVICE))).toBe("remote");
        return (await ground.sidecar.seen()).length > 0;
      };
      await ground.redirect({ groups: { include: "*", exclude: [888, 889] } });
      expect([await call(888), await call(889), await call(0)]).toEqual([false, false, true]);
      await ground.redirect({ groups: { include: [202, 203], exclude: [] } });
      expect([await call(202), await call(203), await call(0)]).toEqual([true, true, false]);
    });
  });

  test("a loopback address among the included ranges is outbound, 127.0.0.1 is not", async () => {
    await annotated(`${TRAFFIC}/includeOutboundIPRanges`, "127.0.0.0/8");
    expect(await ground.fromApp(4, "127.0.0.2", APP)).toMatchObject({
      who: "app",
      via: [`15001 127.0.0.2:${APP}`, `15006 127.0.0.2:${APP}`],
    });
    expect(await ground.fromApp(4, "127.0.0.1", APP)).toMatchObject({ who: "app", via: [] });
  });

  test("IPv6 is left alone where the pod's first address is IPv4 and dual stack is off", async () => {
    await ground.redirect({ env: { ISTIO_DUAL_STACK: "false" } });
    expect(await ground.fromApp(6, remote(6), SERVICE)).toMatchObject({ who: "remote", via: [] });
    expect(await ground.fromRemote(6, APP)).toMatchObject({ who: "app", via: [] });
    expect(await ground.fromApp(4, remote(4), SERVICE)).toMatchObject({ via: [`15001 ${remote(4)}:80`] });
    const lo = native()
      .addresses(ground.lab.pod.netns.fd)
      .filter(({ ifindex }) => ifindex === 1);
    expect(lo.map(({ address }) => address)).not.toContain("::6");
  });
});
