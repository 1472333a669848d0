// SPDX-License-Identifier: Apache-2.0
// Random walks of one pod: engines, settings, faults, istio-cni and back, drains, ztunnels and agents that follow each
// other, and what others take away. A captured pod is captured after every step, and open connections live. Each walk
// is its seed's; SEED=<n> runs another one.
import { afterEach, beforeEach, expect, test } from "vitest";
import { messageOf } from "../../../src/core/errors.ts";
import type { CaptureSpec } from "../../../src/core/ports/dataplane.ts";
import { type FaultAgent, FaultLab } from "../../support/lab-faults.ts";
import { UPSTREAM_SETTINGS } from "../../support/lab-giver.ts";
import type { Call } from "../../support/lab-peer.ts";
import { expectAlive } from "../../support/lab-traffic.ts";
import { UPSTREAM_FORMS } from "../../support/lab-upstream.ts";
import { inNetns } from "../../support/netns-lab.ts";
import { Chance } from "../../unit/agent/storm/chance.ts";

const SEEDS = process.env.SEED === undefined ? [3, 6] : [Number(process.env.SEED)];
const STEPS = 25;
const ENGINES = ["ebpf", "nftables", "iptables", undefined] as const;
const ACTS = ["capture", "capture", "hand over", "drain", "collect", "next ztunnel", "next agent"] as const;
const SABOTAGES = [
  "nft flush ruleset",
  "tc filter del dev eth0 ingress",
  "tc filter del dev eth0 egress",
  "tc qdisc del dev lo clsact",
  "ip rule del fwmark 0x111/0xfff pref 32764",
  "ip -6 route flush table 100",
  "iptables-legacy -t nat -F",
  "sysctl -w net.ipv4.tcp_fwmark_accept=0",
] as const;
/** A sysctl that was set by who was killed before that was written anywhere looks like the pod's own. */
const SYSCTL = /^net\./;

let lab: FaultLab;
let faulty: FaultAgent;
let next: FaultAgent;
let lasting: Call[];

beforeEach(async () => {
  lab = new FaultLab();
  faulty = await lab.startFaulty();
  next = await lab.start();
  await lab.renew();
  lasting = [];
});
afterEach(() => lab.close());

/** Returns what was done, in words. */
async function act(chance: Chance, spec: CaptureSpec): Promise<string> {
  const what = chance.of(ACTS) ?? "capture";
  const form = chance.of(UPSTREAM_FORMS) ?? "nftables";
  Object.assign(lab.config, UPSTREAM_SETTINGS[form]);
  if (what === "next agent") {
    next.dataplane.close();
    next = await lab.start();
    return what;
  }
  if (what === "next ztunnel") {
    await lab.traffic.succeedZtunnel();
    next.dataplane.listenersOpened(lab.pod);
    return what;
  }
  const doing = async ({ dataplane }: FaultAgent, netns = lab.pod) => {
    if (what === "capture") await dataplane.capture(netns, spec);
    else if (what === "hand over") await dataplane.handOver(netns, spec);
    else if (what === "drain") await dataplane.drain(netns, spec);
    else dataplane.collect();
  };
  const words = `${what} (engine ${spec.engine ?? "auto"}, form ${form})`;
  if (chance.is(1 / 2)) {
    await doing(next);
    return words;
  }
  const fault = chance.is(1 / 2) ? "killed" : "refused";
  const writes = chance.below(20);
  const unmade = await lab.during(fault, writes, (netns) => doing(faulty, netns));
  return `${words}, ${fault} after ${writes} writes: ${unmade ?? "it needs no more"}`;
}

async function step(chance: Chance, tell: (words: string) => void): Promise<void> {
  const engine = chance.of(ENGINES);
  const spec = lab.spec({
    ...(engine === undefined ? {} : { engine }),
    excludeOutboundCidrs: chance.is(1 / 3) ? ["192.0.2.0/24"] : [],
  });
  const words = await act(chance, spec);
  tell(words);
  if (words.startsWith("drain")) await lab.open();
  else if (words !== "next ztunnel") await lab.throughZtunnel();
  await expectAlive(lasting);
  if (chance.is(1 / 7)) {
    const sabotage = chance.of(SABOTAGES) ?? "true";
    tell(sabotage);
    // What is taken away may be what they live by.
    for (const call of lasting.splice(0)) call.close();
    await inNetns(lab.pod, "sh", "-c", `${sabotage} || true`);
  }
  await next.dataplane.capture(lab.pod, spec, true);
  next.dataplane.listenersOpened(lab.pod);
  await lab.throughZtunnel();
  await expectAlive(lasting);
  if (chance.is(1 / 2)) lasting.push(...(await lab.traffic.openAll()));
  while (lasting.length > 24 || (lasting.length > 0 && chance.is(1 / 3))) {
    for (const call of lasting.splice(chance.below(lasting.length), 1)) call.close();
  }
}

test.each(SEEDS)("seed %i", async (seed) => {
  const chance = new Chance(seed);
  const told: string[] = [];
  await next.dataplane.capture(lab.pod, lab.spec());
  for (let i = 0; i < STEPS; i++) {
    try {
      await step(chance, (words) => told.push(`${i}: ${words}`));
    } catch (error) {
      throw new Error(`${messageOf(error)}\n${told.join("\n")}`, { cause: error });
    }
  }
  for (const call of lasting) call.close();
  await expect.poll(() => next.dataplane.proxiedConnections(lab.pod), { timeout: 10_000 }).toBe(0);
  await next.dataplane.release(lab.pod);
  await lab.expectUntouched(SYSCTL);
});
