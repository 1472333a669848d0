// SPDX-License-Identifier: Apache-2.0
// What `inspect` and `verify` say about a sidecar pod: who takes its traffic, and what is no mistake.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { canonicalIp } from "../../../src/core/ip.ts";
import { NOBODY } from "../../../src/dataplane/nobody.ts";
import { native } from "../../../src/native/load.ts";
import { inNetns, NetnsLab } from "../../support/netns-lab.ts";
import { DUAL_STACK, type RedirectionWish, redirectionOf } from "../../support/sidecar-samples.ts";
import { Ground, redirectorOf, WRITERS } from "./ground.ts";

const DNS = { ISTIO_META_DNS_CAPTURE: "true" };
const TPROXY = { "sidecar.istio.io/interceptionMode": "TPROXY" };
const setting = (name: string, value: string) => ({ [`traffic.sidecar.istio.io/${name}`]: value });

const [nftables, , legacy] = WRITERS;
if (nftables === undefined || legacy === undefined) throw new Error("no writers");

describe.each([
  { mode: "REDIRECT", transparent: false },
  { mode: "TPROXY", transparent: true },
])("$mode", ({ transparent }) => {
  const proxyUid = transparent ? 0 : 1337;
  let ground: Ground;
  beforeAll(async () => {
    ground = await Ground.create(nftables, transparent);
  });
  afterAll(() => ground.close());

  async function rows(uid = proxyUid, redirection = ground.current): Promise<string[]> {
    const pod = { ips: DUAL_STACK, redirection, proxyUid: uid };
    const proofs = await ground.redirector.prove(ground.lab.pod.netns, pod);
    return proofs.map(({ row, family, result, evidence }) => `${row} ${family} ${result}: ${evidence}`);
  }

  const redirect = ({ annotations = {}, ...wish }: RedirectionWish = {}) =>
    ground.redirect({ ...wish, annotations: { ...annotations, ...(transparent ? TPROXY : {}) } });

  function facts(): string[] {
    const pod = { ips: DUAL_STACK, redirection: ground.current, proxyUid };
    return ground.redirector
      .examine(ground.lab.pod.netns, pod)
      .map(({ name, ok, text }) => `${ok === null ? "?" : ok ? "ok" : "wrong"} ${name}: ${text}`);
  }

  test("all is proved, and nothing of the proof is left", async () => {
    await redirect({ env: DNS });
    expect((await rows()).map((row) => row.replace(/:\d+ is taken/, " is taken"))).toEqual([
      "redirected 4 proved: a connection of ours over the pod's loopback is redirected, as its own check expects",
      "outbound 4 proved: a call to 192.0.2.1 is taken by the proxy at port 15001",
      "inbound 4 proved: a remote's call to 10.66.0.2 is taken by the proxy at port 15006",
      "dns-tcp 4 proved: a call to 192.0.2.1 is taken by the proxy at port 15053",
      "redirected 6 proved: a connection of ours over the pod's loopback is redirected, as its own check expects",
      "outbound 6 proved: a call to [2001:db8::1] is taken by the proxy at port 15001",
      "inbound 6 proved: a remote's call to [fd66::2] is taken by the proxy at port 15006",
      "dns-tcp 6 proved: a call to [2001:db8::1] is taken by the proxy at port 15053",
    ]);
    const connected = [1, 2, 3, 4, 5, 8, 9, 11];
    const left = () =>
      native()
        .sockets(ground.lab.pod.netns.fd, { protocol: "tcp", states: connected })
        .filter(({ dst }) => Object.values(NOBODY).includes(canonicalIp(dst)));
    await expect.poll(left).toEqual([]);
    expect(facts()).toEqual([
      "ok redirection: nftables, as it should be",
      `ok listener 15001: outbound: the proxy, uid ${proxyUid}`,
      `ok listener 15006: inbound: the proxy, uid ${proxyUid}`,
      `ok listener 15053: DNS over TCP: the proxy, uid ${proxyUid}`,
      `ok listener 15053: DNS over UDP: the proxy, uid ${proxyUid}`,
    ]);
  });

  test("what the annotations leave alone is no failure", async () => {
    await redirect({
      annotations: {
        ...setting("includeOutboundIPRanges", "192.0.2.0/24"),
        ...setting("includeInboundPorts", "8080"),
      },
    });
    const [, outbound4, inbound4, , outbound6] = await rows();
    expect(outbound4).toMatch(/ proved: /);
    expect(outbound6).toBe("outbound 6 skipped: as the pod's annotations ask, calls to [2001:db8::1]:9 are left alone");
    expect(inbound4).toBe(
      transparent
        ? "inbound 4 skipped: whoever takes it looks the same: the pod listens at each such port"
        : "inbound 4 proved: a remote's call to 10.66.0.2:8080 is taken by the proxy at port 15006",
    );
    await redirect({ annotations: setting("includeInboundPorts", "") });
    expect((await rows())[2]).toBe("inbound 4 skipped: as its annotations ask, nothing that arrives is redirected");
  });

  test("somebody else at the proxy's ports is not the proxy", async () => {
    await redirect();
    const seen = await rows(4242);
    expect(seen[1]).toBe(
      `outbound 4 failed: a call to 192.0.2.1:9 is taken at port 15001 by uid ${proxyUid}, not by the proxy's 4242`,
    );
    expect(seen[2]).toMatch(/^inbound 4 failed: .* is taken at port 15006 by uid/);
  });

  test("rules that are not there any more", async () => {
    await redirect();
    const { current } = ground;
    await ground.redirector.remove(ground.lab.pod.netns, current);
    const seen = await rows();
    expect(seen.map((row) => row.split(":")[0])).toEqual([
      "redirected 4 failed",
      "outbound 4 failed",
      "inbound 4 failed",
      "redirected 6 failed",
      "outbound 6 failed",
      "inbound 6 failed",
    ]);
    expect(facts()[0]).toBe("wrong redirection: nothing redirects the pod's traffic into its sidecar");
  });
});

test("somebody else's rules are proved too, but for what is ours alone", async () => {
  const ground = await Ground.create(legacy);
  try {
    const { netns } = ground.lab.pod;
    await ground.redirect();
    for (const act of ["-F", "-X"]) await inNetns(netns, "iptables-legacy", "-t", "nat", act, "ISTIO_STATE");
    const pod = { ips: DUAL_STACK, redirection: ground.current, proxyUid: 1337 };
    const proofs = await ground.redirector.prove(netns, pod);
    expect(proofs.map(({ row, family, result }) => `${row} ${family} ${result}`)).toEqual([
      "redirected 4 skipped",
      "outbound 4 proved",
      "inbound 4 proved",
      "redirected 6 skipped",
      "outbound 6 proved",
      "inbound 6 proved",
    ]);
    expect(ground.redirector.examine(netns, pod)[0]).toEqual({
      name: "redirection",
      ok: null,
      text: "iptables, not by our rules: they stay as they are, and are not compared",
    });
  } finally {
    await ground.close();
  }
});

test("a pod without its sidecar yet: redirected, and nobody is there", async () => {
  using lab = NetnsLab.create();
  const redirector = redirectorOf(nftables, lab.client.netns);
  const pod = {
    ips: DUAL_STACK.slice(0, 1),
    redirection: redirectionOf({ ips: DUAL_STACK.slice(0, 1) }),
    proxyUid: 1337,
  };
  await redirector.redirect(lab.pod.netns, pod.redirection, "test/pod");
  const proofs = await redirector.prove(lab.pod.netns, pod);
  expect(proofs.map(({ row, result, evidence }) => `${row} ${result}: ${evidence}`)).toEqual([
    expect.stringMatching(/^redirected proved: /),
    expect.stringMatching(/^outbound failed: ECONNREFUSED: /),
    "inbound failed: a remote's call was taken by nobody",
  ]);
  expect(redirector.examine(lab.pod.netns, pod).map(({ ok, text }) => `${ok} ${text}`)).toEqual([
    "true nftables, as it should be",
    "false outbound: the proxy (uid 1337) does not listen",
    "false inbound: the proxy (uid 1337) does not listen",
  ]);
  redirector.close();
});
