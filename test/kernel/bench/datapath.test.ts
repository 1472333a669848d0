// SPDX-License-Identifier: Apache-2.0
// The benchmark counts a run only when its connections went where they should: seen here to refuse others.
import { afterAll, beforeAll, expect, test } from "vitest";
import { DIRECTIONS, type Direction } from "../../bench/datapath/ground.ts";
import { MODES, Trial } from "../../bench/datapath/measure.ts";
import { Programs } from "../../bench/datapath/programs.ts";
import { makeVariants, type Variant } from "../../bench/datapath/variants.ts";
import { inNetns } from "../../support/netns-lab.ts";

let programs: Programs;
let variants: readonly Variant[];

beforeAll(async () => {
  programs = await Programs.compile("split");
  ({ variants } = await makeVariants(["none", "nftables", "upstream"], "nft"));
});

afterAll(() => {
  for (const variant of variants) variant.close();
  programs[Symbol.dispose]();
});

function variantNamed(name: string): Variant {
  const found = variants.find((variant) => variant.name === name);
  if (found === undefined) throw new Error(`no variant ${name}`);
  return found;
}

/** One short run of new connections. */
async function tryOut(variant: Variant, direction: Direction): Promise<void> {
  await using trial = await Trial.open(programs, variant, direction, 4);
  await trial.run("connections", 0.05);
}

/** Upstream's variant with another capture. */
function capturing(capture: Variant["capture"]): Variant {
  const nothing = async () => undefined;
  return { name: "upstream", redirects: true, meet: nothing, capture, release: nothing, close: () => undefined };
}

test.each([4, 6] as const)("IPv%d: every mode of every variant is counted, in both directions", async (family) => {
  for (const variant of variants) {
    for (const direction of DIRECTIONS) {
      await using trial = await Trial.open(programs, variant, direction, family);
      for (const mode of MODES) await trial.run(mode, 0.05);
      const numbers = trial.samples().flatMap((sample) => Object.values(sample));
      expect(numbers).toHaveLength(6);
      expect(numbers.every((value) => value > 0)).toBe(true);
    }
  }
});

test.each(DIRECTIONS)("%s connections that pass the proxy by are no result", async (direction) => {
  const nothing = capturing(async () => undefined);
  await expect(tryOut(nothing, direction)).rejects.toThrow(`connections that the proxy took as ${direction}: 0, not `);
});

test("an original destination that nobody asked for spoils the result", async () => {
  const curious = capturing(async (ground) => {
    await variantNamed("upstream").capture(ground);
    await inNetns(ground.pod, "bash", "-c", "exec 3<>/dev/tcp/10.66.0.1/9999");
  });
  await expect(tryOut(curious, "outbound")).rejects.toThrow("nobody asked for (10.66.0.1:9999): 1, not 0");
});

test("a proxied connection that comes to another destination is no result", async () => {
  const diverted = capturing(async (ground) => {
    await variantNamed("upstream").capture(ground);
    const rule = ["OUTPUT", "-p", "tcp", "-m", "mark", "--mark", "0x539", "--dport", "9001:9015"];
    await inNetns(ground.pod, "iptables", "-t", "nat", "-A", ...rule, "-j", "DNAT", "--to-destination", ":9000");
  });
  await expect(tryOut(diverted, "outbound")).rejects.toThrow(/another destination, or from another client: \d+, not 0/);
});

test("a proxied connection that comes from another address than its client's is no result", async () => {
  const masked = capturing(async (ground) => {
    await variantNamed("upstream").capture(ground);
    const rule = ["POSTROUTING", "-o", "lo", "-p", "tcp", "--dport", "8080", "-j", "SNAT"];
    await inNetns(ground.pod, "iptables", "-t", "nat", "-A", ...rule, "--to-source", "10.66.0.99");
  });
  await expect(tryOut(masked, "inbound")).rejects.toThrow(/another destination, or from another client: \d+, not 0/);
});
