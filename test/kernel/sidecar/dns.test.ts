// SPDX-License-Identifier: Apache-2.0
// DNS capture and dropping of what conntrack finds invalid, with every writer.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Call } from "../../support/lab-peer.ts";
import { LabPrograms } from "../../support/lab-programs.ts";
import { inNetns, ipOf } from "../../support/netns-lab.ts";
import { FAMILIES, Ground, SERVICE, WRITERS } from "./ground.ts";

const DNS = { ISTIO_META_DNS_CAPTURE: "true" };

describe.each(WRITERS)("$name", (writer) => {
  let ground: Ground;
  let frames: LabPrograms;
  beforeAll(async () => {
    [ground, frames] = await Promise.all([Ground.create(writer), LabPrograms.compile(["lab-syn"])]);
  });
  afterAll(async () => {
    frames[Symbol.dispose]();
    await ground.close();
  });

  const remote = (family: 4 | 6) => ipOf(ground.lab.client, family);

  describe.each(FAMILIES)("IPv%i", (family) => {
    const ask = (owner: number, ...rest: string[]) =>
      ground.fromOwner(owner, owner, "udp", remote(family), "53", ...rest);
    beforeAll(async () => {
      await ground.redirect({ env: DNS });
      ground.sidecar.forget();
    });

    test("questions by UDP go to 15053, and the answer comes from the nameserver asked", async () => {
      expect(await ask(0)).toBe(`answer:question from ${remote(family)} 53`);
      expect(ground.sidecar.questions).toEqual(["udp question"]);
    });
    test("questions by TCP too", async () => {
      const call = await Call.open(ground.lab.pod.netns, family, remote(family), 53);
      expect(await call.echo("question")).toBe("answer:question");
      expect(call.peer).toEqual({ address: remote(family), port: 53 });
      call.close();
      expect(ground.sidecar.questions).toEqual(["udp question", "tcp question"]);
    });
    test("the proxy's own reach the nameserver, also from a port that an application has just used", async () => {
      const source = [ipOf(ground.lab.pod, family), "5300"];
      expect(await ask(0, ...source)).toBe(`answer:question from ${remote(family)} 53`);
      expect(await ask(1337, ...source)).toBe(`nameserver:question from ${remote(family)} 53`);
      expect(await ask(0, ...source)).toBe(`answer:question from ${remote(family)} 53`);
    });
    test("a nameserver of the pod's own is asked through 15053", async () => {
      const loopback = family === 4 ? "127.0.0.53" : ipOf(ground.lab.pod, family);
      expect(await ground.fromOwner(0, 0, "udp", loopback, "53")).toBe(`answer:question from ${loopback} 53`);
    });
    test("other traffic goes as it goes without", async () => {
      const { who, via } = await ground.fromApp(family, remote(family), SERVICE);
      expect([who, via]).toEqual(["remote", [`15001 ${remote(family)}:80`]]);
    });
    test("an excluded port 53 is not captured", async () => {
      await ground.redirect({
        env: DNS,
        annotations: { "traffic.sidecar.istio.io/excludeOutboundPorts": "53" },
      });
      expect(await ask(0)).toBe(`nameserver:question from ${remote(family)} 53`);
    });
  });

  test("packets that belong to no connection are dropped only where the pod asks for it", async () => {
    const { lab } = ground;
    const dropped = async () => {
      // SYN and FIN together: conntrack calls that invalid. Two, so that one lost on the way shows.
      for (const port of ["5001", "5002"]) {
        const argv = ["invalid", remote(4), port, ipOf(lab.pod, 4), "9999"];
        await inNetns(lab.client.netns, frames.file("lab-syn"), ...argv);
      }
      return inNetns(lab.pod.netns, "sh", "-c", COUNTERS[writer.name] ?? "");
    };
    await ground.redirect({ env: { INVALID_DROP: "true" } });
    await expect.poll(dropped).toMatch(/\b[2-9]\b.*drop/i);
    await ground.redirect();
    expect(await inNetns(lab.pod.netns, "sh", "-c", COUNTERS[writer.name] ?? "")).toBe("");
  });
});

const COUNTERS: Readonly<Record<string, string>> = {
  nftables: "nft list table inet ambient-cni-sidecar | grep drop || true",
  "iptables-nft": "iptables-nft -t mangle -nvxL ISTIO_DROP 2>/dev/null | grep DROP || true",
  "iptables-legacy": "iptables-legacy -t mangle -nvxL ISTIO_DROP 2>/dev/null | grep DROP || true",
};
