// SPDX-License-Identifier: Apache-2.0
// `npm run bench -- sidecar`: what the redirection of one more sidecar pod costs, writer by writer.
import { parseArgs } from "node:util";
import { messageOf } from "../../src/core/errors.ts";
import { SidecarRedirector } from "../../src/dataplane/sidecar/redirector.ts";
import { native } from "../../src/native/load.ts";
import { createNetns } from "../../src/native/netns.ts";
import { sampleRedirection } from "../../src/sidecar/sample.ts";
import { forkCount } from "../../src/sys/exec.ts";
import { quiet } from "../support/lab-dataplane.ts";
import { redirectionOf } from "../support/sidecar-samples.ts";
import { median, quantile } from "./datapath/summary.ts";
import { ScratchPods } from "./enroll/pods.ts";

const WRITERS = {
  nftables: { engine: "nftables", variant: undefined },
  "iptables-nft": { engine: "iptables", variant: "nft" },
  "iptables-legacy": { engine: "iptables", variant: "legacy" },
} as const;
const MODES = ["REDIRECT", "TPROXY"] as const;
/** Redirected before the clock counts: compiled code, kernel modules, and what this kernel makes of the rules. */
const WARM_UP_PODS = 5;

const { values: options } = parseArgs({
  options: { pods: { type: "string", default: "100" }, json: { type: "boolean", default: false } },
});

interface Cost {
  readonly writer: string;
  readonly mode: string;
  /** Milliseconds of one pod: looked at, written, read back, compared, verified by connections in both families. */
  readonly p50: number;
  readonly p90: number;
  readonly max: number;
  /** Milliseconds of a pod that is redirected already. */
  readonly unchangedP50: number;
  /** Programs started, per pod. */
  readonly forks: number;
}

async function measure(writer: keyof typeof WRITERS, mode: (typeof MODES)[number], count: number): Promise<Cost> {
  using pods = new ScratchPods(count + WARM_UP_PODS);
  using host = createNetns();
  const redirector = new SidecarRedirector({
    binding: native(),
    host,
    logger: quiet,
    ...WRITERS[writer],
    sample: sampleRedirection,
  });
  const annotations = { "sidecar.istio.io/interceptionMode": mode };
  try {
    const written: number[] = [];
    const unchanged: number[] = [];
    let forks = 0;
    for (const [index, { netns, spec }] of pods.pods.entries()) {
      const redirection = redirectionOf({ annotations, ips: spec.ips });
      const before = forkCount();
      const began = performance.now();
      const { engine } = await redirector.redirect(netns, redirection, spec.pod);
      const ended = performance.now();
      if (engine !== WRITERS[writer].engine) throw new Error(`redirected by ${engine}`);
      const again = await redirector.redirect(netns, redirection, spec.pod);
      if (again.mode !== "redirected") throw new Error(`${spec.pod} is ${again.mode}`);
      if (index < WARM_UP_PODS) continue;
      written.push(ended - began);
      unchanged.push(performance.now() - ended);
      forks += forkCount() - before;
    }
    return {
      ...{ writer, mode, p50: median(written), p90: quantile(written, 0.9), max: Math.max(...written) },
      ...{ unchangedP50: median(unchanged), forks: forks / count },
    };
  } finally {
    redirector.close();
  }
}

const costs: Cost[] = [];
const absent: string[] = [];
for (const writer of Object.keys(WRITERS) as (keyof typeof WRITERS)[]) {
  for (const mode of MODES) {
    try {
      costs.push(await measure(writer, mode, Number(options.pods)));
    } catch (error) {
      absent.push(`${writer}, ${mode} is absent: ${messageOf(error)}`);
    }
  }
}

const ours = costs.find(({ writer, mode }) => writer === "nftables" && mode === "REDIRECT");
const verdict = ours === undefined ? "not measured" : ours.p50 < 30 ? "met" : "not met";
const goal = { text: "nftables: p50 of a pod under 30 ms", verdict };

if (options.json) {
  console.log(JSON.stringify({ costs, absent, goals: [goal] }, null, 2));
} else {
  const ms = (value: number) => `${value.toFixed(2)} ms`.padStart(11);
  console.log(`${options.pods} dual-stack pods one after the other, written and verified\n`);
  console.log("writer           mode            p50        p90        max  unchanged  forks/pod");
  for (const { writer, mode, p50, p90, max, unchangedP50, forks } of costs) {
    const numbers = [p50, p90, max, unchangedP50].map(ms).join("");
    console.log(`${writer.padEnd(17)}${mode.padEnd(9)}${numbers}${forks.toFixed(2).padStart(11)}`);
  }
  for (const line of absent) console.log(line);
  console.log(`\n${goal.text}: ${goal.verdict}`);
}
