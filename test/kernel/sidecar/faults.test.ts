// SPDX-License-Identifier: Apache-2.0
// An agent is killed between any two of its writes to a sidecar pod, or the kernel refuses any one of them: an ADD
// that succeeds has redirected the pod, one that fails has left nothing, and the next attempt finishes.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { messageOf } from "../../../src/core/errors.ts";
import type { Redirection } from "../../../src/core/redirection.ts";
import type { SidecarRedirector } from "../../../src/dataplane/sidecar/redirector.ts";
import { native } from "../../../src/native/load.ts";
import { type Fault, Faults } from "../../support/faulty-binding.ts";
import { Call } from "../../support/lab-peer.ts";
import { expectAlive } from "../../support/lab-traffic.ts";
import { inNetns, ipOf } from "../../support/netns-lab.ts";
import { redirectionOf } from "../../support/sidecar-samples.ts";
import { APP, FAMILIES, Ground, type LabWriter, redirectorOf, SERVICE, WRITERS } from "./ground.ts";

const MODES = [
  { mode: "REDIRECT", annotations: {}, env: { ISTIO_META_DNS_CAPTURE: "1" } },
  { mode: "TPROXY", annotations: { "sidecar.istio.io/interceptionMode": "TPROXY" }, env: {} },
] as const;
const FAULTS: readonly Fault[] = ["killed", "refused"];
const [firstWriter, , legacy] = WRITERS;
if (firstWriter === undefined || legacy === undefined) throw new Error("no writer");

describe.each(MODES)("$mode", ({ mode, annotations, env }) => {
  const own = redirectionOf({ annotations, env });
  const other = redirectionOf({
    annotations: { ...annotations, "traffic.sidecar.istio.io/excludeOutboundPorts": "443" },
    env,
  });
  let ground: Ground;
  beforeAll(async () => {
    ground = await Ground.create(firstWriter, mode === "TPROXY");
    if (mode === "TPROXY") await inNetns(pod(), "sh", "-ec", SOMEBODY_ELSES);
  });
  afterAll(() => ground.close());
  const pod = () => ground.lab.pod.netns;

  test("an ADD whose self-test is refused something: the next one tests again", async () => {
    const before = traces(ground);
    const faults = new Faults();
    const redirector = redirectorOf(legacy, ground.lab.client.netns, faults.binding());
    const add = () => redirector.redirect(pod(), own, "test/pod");
    const refused = () => expect(add()).rejects.toThrow("does not work on this node: addressAdd is refused");
    expect(await faults.during("refused", 0, refused)).toBe("addressAdd");
    expect(traces(ground)).toEqual(before);
    expect(await add()).toMatchObject({ mode: "redirected" });
    await redirector.remove(pod(), own);
    redirector.close();
  });

  describe.each(WRITERS)("$name", (writer) => {
    const faults = new Faults("table");
    let faulty: SidecarRedirector;
    let next: SidecarRedirector;
    const start = (how: LabWriter, binding = native()) => redirectorOf(how, ground.lab.client.netns, binding);
    beforeAll(async () => {
      [faulty, next] = [start(writer, faults.binding()), start(writer)];
      for (const one of [faulty, next]) await redirected(one, own);
      await next.remove(pod(), own);
    });
    afterAll(() => {
      for (const one of [faulty, next]) one.close();
    });

    const redirected = async (by: SidecarRedirector, redirection: Redirection) => {
      expect(await by.redirect(pod(), redirection, "test/pod")).toMatchObject({ mode: "redirected" });
    };

    /** The fault after no write, one, two, ... until the change needs no more. */
    async function everywhere(
      fault: Fault,
      change: () => Promise<unknown>,
      given: () => Promise<unknown>,
      then: (failure: unknown) => Promise<void>,
    ): Promise<void> {
      for (let writes = 0; ; writes++) {
        await given();
        let failure: unknown;
        const doing = () => change().catch((error: unknown) => (failure = error));
        const unmade = await faults.during(fault, writes, doing);
        try {
          await then(failure);
        } catch (error) {
          const when = `after ${writes} writes, at ${unmade ?? "the end"}`;
          throw new Error(`${when}: ${messageOf(error)}`, { cause: error });
        }
        if (unmade !== undefined) continue;
        expect(failure).toBeUndefined();
        expect(writes).toBeGreaterThan(0);
        return;
      }
    }

    test.each(FAULTS)("an ADD, %s", async (fault) => {
      const before = traces(ground);
      await everywhere(
        fault,
        () => faulty.redirect(pod(), own, "test/pod"),
        () => next.remove(pod(), own),
        async (failure) => {
          if (failure === undefined) await expectRedirected(ground);
          else if (fault === "refused") expect(traces(ground)).toEqual(before);
          // The runtime asks the same agent again, if that lives.
          await redirected(fault === "refused" ? faulty : next, own);
          await next.remove(pod(), own);
          expect(traces(ground)).toEqual(before);
        },
      );
    });

    test.each(predecessorsOf(writer, mode).flatMap((predecessor) => FAULTS.map((fault) => ({ predecessor, fault }))))(
      "over the rules of $predecessor, $fault",
      async ({ predecessor, fault }) => {
        const before = traces(ground);
        const former = predecessor === "another version" ? next : start(otherThan(writer));
        let lasting: Call[] = [];
        await everywhere(
          fault,
          () => faulty.redirect(pod(), other, "test/pod"),
          async () => {
            await next.remove(pod(), other);
            await redirected(former, own);
            lasting = await openBoth(ground);
          },
          async () => {
            await expectRedirected(ground);
            await redirected(next, other);
            await expectAlive(lasting);
            for (const call of lasting) call.close();
          },
        );
        await expectRedirected(ground);
        if (former !== next) former.close();
        await next.remove(pod(), other);
        expect(traces(ground)).toEqual(before);
      },
    );

    test.each(FAULTS)("removed, %s", async (fault) => {
      const before = traces(ground);
      await everywhere(
        fault,
        () => faulty.remove(pod(), own),
        () => redirected(next, own),
        async () => {
          await next.remove(pod(), own);
          expect(traces(ground)).toEqual(before);
        },
      );
    });
  });
});

/** Two sets of rules in one pod are the hardest for connections that are not translated. */
function predecessorsOf({ name }: LabWriter, mode: string): readonly string[] {
  const [own, foreign] = ["another version", "another writer"];
  return name === legacy?.name && mode === "TPROXY" ? [own, foreign] : [own];
}

function otherThan({ name }: LabWriter): LabWriter {
  const found = WRITERS.toReversed().find((one) => one.name !== name);
  if (found === undefined) throw new Error("there is one writer");
  return found;
}

const SOMEBODY_ELSES =
  "nft add table inet own; nft add chain inet own out '{ type filter hook output priority 0; }'; " +
  "for t in iptables-nft iptables-legacy ip6tables-nft ip6tables-legacy; do $t -t nat -A OUTPUT -p tcp --dport 9 -j RETURN; done";

/** What is in the pod that a redirection may be made of, whoever made it. Tables of legacy iptables stay for ever. */
function traces({ lab }: Ground): readonly string[] {
  const { fd } = lab.pod.netns;
  const nft = native()
    .nftTables(fd)
    .flatMap((title) => {
      const [family = "", table = ""] = title.split(" ");
      const found = native().nftTable(fd, family, table);
      return [
        title,
        ...(found?.chains ?? []).map(({ name }) => `${title} ${name}`),
        ...(found?.rules ?? []).map(ruleText),
      ];
    });
  const legacy = FAMILIES.flatMap((family) =>
    native()
      .xtables(fd, family)
      .flatMap(({ name, chains, rules }) => [
        ...chains.filter(({ policy }) => policy === "").map((chain) => `${family} ${name} ${chain.name}`),
        ...rules.map(ruleText),
      ]),
  );
  const routing = FAMILIES.flatMap((family) => [
    ...native()
      .rules(fd, family)
      .map(({ priority, table }) => `${family} rule ${priority} ${table}`),
    ...native()
      .routes(fd, family, 133)
      .map(({ dst }) => `${family} route ${dst}`),
  ]);
  const addresses = native()
    .addresses(fd)
    .map(({ ifindex, address }) => `${ifindex} ${address}`);
  return [...nft, ...legacy, ...routing, ...addresses];
}

function ruleText({ chain, comment, digest }: { chain: string; comment: string; digest: string }): string {
  return `${chain} ${comment} ${digest}`;
}

/** Both ways in both families lead to the sidecar, and the pod's own check passes. */
async function expectRedirected(ground: Ground): Promise<void> {
  for (const family of FAMILIES) {
    const [remote, pod] = [ipOf(ground.lab.client, family), ipOf(ground.lab.pod, family)];
    expect(await ground.fromApp(family, remote, SERVICE)).toMatchObject({
      who: "remote",
      via: [`15001 ${remote}:${SERVICE}`],
    });
    expect(await ground.fromRemote(family, APP)).toMatchObject({ who: "app", via: [`15006 ${pod}:${APP}`] });
    const [loopback, check] = family === 4 ? ["127.0.0.1", "127.0.0.6"] : ["::1", "::6"];
    ground.sidecar.forget();
    await ground.fromOwner(1337, 1337, "tcp", check, "15002", loopback, "0");
    expect(await ground.sidecar.seen()).toEqual([`15006 ${check}:15002`]);
  }
}

/** Open connections of every way. */
async function openBoth({ lab }: Ground): Promise<Call[]> {
  const calls: Call[] = [];
  for (const family of FAMILIES) {
    calls.push(await Call.open(lab.pod.netns, family, ipOf(lab.client, family), SERVICE));
    calls.push(await Call.open(lab.client.netns, family, ipOf(lab.pod, family), APP));
  }
  for (const call of calls) await call.greeting();
  return calls;
}
