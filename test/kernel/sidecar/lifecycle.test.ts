// SPDX-License-Identifier: Apache-2.0
// How a redirection comes and goes: once, as a whole or not at all, and never over somebody else's.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { SidecarRedirector } from "../../../src/dataplane/sidecar/redirector.ts";
import { verifyRedirection } from "../../../src/dataplane/sidecar/verify.ts";
import { native } from "../../../src/native/load.ts";
import { forkCount, run } from "../../../src/sys/exec.ts";
import { stateOf } from "../../support/lab-dataplane.ts";
import { validate } from "../../support/lab-sidecar.ts";
import { inNetns, NetnsLab } from "../../support/netns-lab.ts";
import { redirectionOf } from "../../support/sidecar-samples.ts";
import { redirectorOf, WRITERS } from "./ground.ts";

const TPROXY = { annotations: { "sidecar.istio.io/interceptionMode": "TPROXY" } };
const MODES = [
  ["REDIRECT", redirectionOf({ env: { ISTIO_META_DNS_CAPTURE: "1" } })],
  ["TPROXY", redirectionOf({ ...TPROXY, env: { INVALID_DROP: "1" } })],
] as const;

/** It gives up after 5 s, beside everything else. */
const unredirected = NetnsLab.create();
const check = validate(unredirected.pod.netns, 4);
afterAll(() => unredirected.close());

let lab: NetnsLab;
beforeEach(() => {
  lab = NetnsLab.create();
});
afterEach(() => lab.close());
const inPod = (script: string) => inNetns(lab.pod.netns, "sh", "-ec", script);

/** With lo's addresses, one of which is ours, and without counters. */
const wholeState = async () => {
  const all = `${await stateOf(lab.pod.netns)}${await inPod("ip -o address show dev lo")}`;
  return all.replaceAll(/packets \d+ bytes \d+|\[\d+:\d+\]/g, "");
};

describe.each(WRITERS)("$name", (writer) => {
  let redirector: SidecarRedirector;
  beforeAll(() => {
    redirector = redirectorOf(writer, unredirected.client.netns);
  });
  afterAll(() => redirector.close());
  const variant = writer.variant ?? "nft";

  describe.each(MODES)("%s", (_, redirection) => {
    const redirect = (by = redirector) => by.redirect(lab.pod.netns, redirection, "test/pod");
    const observe = (by = redirector) => by.observe(lab.pod.netns, redirection);

    test("the second time costs no fork, also of a successor without memory; removal leaves nothing", async () => {
      const before = await wholeState();
      expect(observe().mode).toBe("absent");
      await redirect();
      const written = await wholeState();
      const successor = redirectorOf(writer, unredirected.client.netns);
      const forks = forkCount();
      for (const by of [redirector, successor]) expect((await redirect(by)).mode).toBe("redirected");
      await verifyRedirection(native(), lab.pod.netns.fd, redirection);
      expect(forkCount()).toBe(forks);
      expect(await wholeState()).toBe(written);
      await successor.remove(lab.pod.netns, redirection);
      successor.close();
      expect(await wholeState()).toBe(before);
    });

    test("lo is still down, as in an ADD whose loopback plugin runs beside ours: redirected all the same", async () => {
      await inPod("ip link set lo down");
      expect((await redirect()).mode).toBe("redirected");
      await verifyRedirection(native(), lab.pod.netns.fd, redirection);
    });

    test("where it can't be verified, nothing of it stays", async () => {
      await inPod("nft 'add table inet wall; add chain inet wall in { type filter hook input priority 0; }'");
      await inPod("nft 'add rule inet wall in iif lo tcp flags syn drop'");
      const before = await wholeState();
      const failure = await redirect().catch((error: unknown) => error);
      expect(failure).toMatchObject({
        code: "NO_ENGINE",
        message: expect.stringMatching(
          /test\/pod can't be written \(.*127\.0\.0\.6 inside the pod's netns was not redirected/,
        ),
      });
      expect(await wholeState()).toBe(before);
    });
  });

  test("other settings, other rules: what was there is replaced", async () => {
    await redirector.redirect(lab.pod.netns, MODES[0][1], "test/pod");
    const other = redirectionOf({ annotations: { "traffic.sidecar.istio.io/excludeOutboundPorts": "443" } });
    const seen = redirector.observe(lab.pod.netns, other);
    expect(seen).toMatchObject({ mode: "differs", outdated: true });
    expect(seen.differences[0]).toMatch(/made for other settings of the pod/);
    await redirector.redirect(lab.pod.netns, other, "test/pod");
    expect(redirector.observe(lab.pod.netns, other).mode).toBe("redirected");
    expect(redirector.observe(lab.pod.netns, MODES[0][1]).mode).toBe("differs");
  });

  test("what is changed behind our back is named and repaired", async () => {
    const redirection = redirectionOf(TPROXY);
    const sabotages: readonly (readonly [nftables: string, iptables: string, sentence: RegExp])[] = [
      ["flush chain inet ambient-cni-sidecar nat-output", `-t nat -F ISTIO_OUTPUT`, /is empty$/],
      [
        "insert rule inet ambient-cni-sidecar nat-output accept",
        `-t nat -I ISTIO_OUTPUT -j RETURN`,
        /has a rule that is not ours/,
      ],
      [
        "delete chain inet ambient-cni-sidecar nat-output",
        `-t nat -D OUTPUT 1`,
        /nat-output is missing|does not lead to/,
      ],
    ];
    for (const [nftables, iptables, sentence] of sabotages) {
      await redirector.redirect(lab.pod.netns, redirection, "test/pod");
      await inPod(writer.engine === "nftables" ? `nft '${nftables}'` : `iptables-${variant} ${iptables}`);
      const seen = redirector.observe(lab.pod.netns, redirection);
      expect(seen.differences.join()).toMatch(sentence);
      // Somebody's doing, which is repaired: not rules of other settings, which stay.
      expect(seen.outdated).toBe(false);
    }
    for (const [command, sentence] of [
      ["ip rule del fwmark 1337", "IPv4 policy rule fwmark 1337 lookup 133 is missing"],
      ["ip -6 route flush table 133", "IPv6 route local default dev lo table 133 is missing"],
      ["ip address del ::6/128 dev lo", "lo has no address ::6"],
    ] as const) {
      await redirector.redirect(lab.pod.netns, redirection, "test/pod");
      await inPod(command);
      expect(redirector.observe(lab.pod.netns, redirection).differences).toEqual([sentence]);
    }
    await redirector.redirect(lab.pod.netns, redirection, "test/pod");
    expect(redirector.observe(lab.pod.netns, redirection).mode).toBe("redirected");
  });

  test("a redirection that is somebody else's stays as it is", async () => {
    const iptables = `iptables-${variant}`;
    await inPod(
      writer.engine === "nftables"
        ? "nft 'add table inet istio-proxy-nat; add chain inet istio-proxy-nat istio-output'"
        : `for t in ${iptables} ip6tables-${variant}; do $t -t nat -N ISTIO_INBOUND; $t -t nat -N ISTIO_OUTPUT; $t -t nat -A OUTPUT -j ISTIO_OUTPUT; done`,
    );
    const before = await wholeState();
    const seen = await redirector.redirect(lab.pod.netns, MODES[0][1], "test/pod");
    expect(seen).toEqual({ mode: "foreign", engine: writer.engine, differences: [] });
    expect(await wholeState()).toBe(before);
  });
});

test.each(["nft", "legacy"] as const)(
  "rules of an agent that was killed half-way are completed: iptables-%s",
  async (variant) => {
    const redirector = redirectorOf({ name: variant, engine: "iptables", variant }, unredirected.client.netns);
    const redirection = MODES[0][1];
    await redirector.redirect(lab.pod.netns, redirection, "test/pod");
    // The table with our memory is written last.
    const raw = await inPod(`iptables-${variant}-save -t raw`);
    await redirector.remove(lab.pod.netns, redirection);
    await run([`iptables-${variant}-restore`, "--noflush"], { stdin: raw, netns: lab.pod.netns.fd, timeoutMs: 5000 });
    expect(redirector.observe(lab.pod.netns, redirection).mode).toBe("differs");
    await redirector.redirect(lab.pod.netns, redirection, "test/pod");
    expect(redirector.observe(lab.pod.netns, redirection).mode).toBe("redirected");
    redirector.close();
  },
);

test("a pod whose rules are iptables' keeps them, whatever new pods get", async () => {
  const redirection = MODES[0][1];
  const [nftables, , legacy] = WRITERS.map((writer) => redirectorOf(writer, unredirected.client.netns));
  if (nftables === undefined || legacy === undefined) throw new Error("there are three writers");
  await legacy.redirect(lab.pod.netns, redirection, "test/pod");
  expect((await nftables.redirect(lab.pod.netns, redirection, "test/pod")).engine).toBe("iptables");
  const other = redirectionOf();
  await nftables.redirect(lab.pod.netns, other, "test/pod");
  expect(nftables.observe(lab.pod.netns, other)).toMatchObject({ mode: "redirected", engine: "iptables" });
  nftables.close();
  legacy.close();
});

test("a pod that nobody redirects is held by its own check", async () => {
  expect(await check).toBe(126);
});
