// SPDX-License-Identifier: Apache-2.0
// `npm run bench`: what enrolling costs, on this machine, in one run.
import { until } from "../../src/sandbox/until.ts";
import { LABEL, REDIRECTION, withSandbox, workload } from "../support/sandbox.ts";
import { median } from "./datapath/summary.ts";
import { measurePlugin } from "./plugin.ts";
import { costOf, rssOf, totalOf } from "./process-cost.ts";
import { phaseMeans } from "./scrape.ts";

const PODS = Number(process.env.BENCH_PODS ?? 200);
const SCRAPES = 11;
const NAMESPACES = Number(process.env.BENCH_NAMESPACES ?? 2000);

const rows: [string, string][] = [];
const note = (what: string, value: string) => {
  rows.push([what, value]);
  console.log(`${what.padEnd(64)} ${value}`);
};
const seconds = (value: number) => `${value.toFixed(2)} s`;
const settle = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

await withSandbox({}, async (sandbox) => {
  const names = Array.from({ length: PODS }, (_, index) => `p${index}`);
  sandbox.describeMesh(
    names.map((name, index) => workload("bench", name, index)),
    [],
  );
  sandbox.api.put({ kind: "Namespace", metadata: { name: "bench" } });
  for (let index = 0; index < NAMESPACES; index++) {
    sandbox.api.put({ kind: "Namespace", metadata: { name: `ns-${index}`, labels: { team: `t${index % 40}` } } });
  }
  await sandbox.startAgent();
  for (const name of names) await sandbox.kubelet.run({ namespace: "bench", name, program: "sleep" });
  sandbox.startZtunnel();
  await settle(2000);
  const annotated = () => names.every((name) => sandbox.annotation("bench", name, REDIRECTION) === "enabled");
  const agentPid = () => sandbox.agent?.leafPid() ?? 0;

  console.log(`${PODS} pods, ${NAMESPACES} namespaces, engine nftables, stand-in ztunnel\n`);
  let before = costOf(agentPid());
  let began = performance.now();
  sandbox.label("bench", LABEL, "ambient");
  await until("all pods are annotated", annotated, 120_000);
  note(`${PODS} pods labelled at once until all are annotated: wall`, seconds((performance.now() - began) / 1000));
  await settle(500);
  let after = costOf(agentPid());
  note("  agent CPU (with its children)", seconds(totalOf(after) - totalOf(before)));
  note("  of which the nft processes", seconds(after.children - before.children));
  for (const [phase, ms] of await phaseMeans(sandbox)) note(`  mean of phase ${phase}`, `${ms.toFixed(2)} ms`);
  note(`RSS with ${PODS} pods and ${NAMESPACES} namespaces`, `${rssOf(agentPid()).toFixed(1)} MiB`);

  const scrapes: number[] = [];
  for (let scrape = 0; scrape < SCRAPES; scrape++) {
    // Counters that were read a moment ago are not read again.
    await settle(1100);
    const asked = performance.now();
    await sandbox.metrics();
    scrapes.push(performance.now() - asked);
  }
  note("a scrape of /metrics, p50", `${median(scrapes).toFixed(1)} ms`);

  before = costOf(agentPid());
  for (const name of names) {
    const pod = sandbox.api.get("Pod", "bench", name);
    if (pod !== undefined) sandbox.api.put({ ...pod, metadata: { ...pod.metadata, labels: { touched: "yes" } } });
  }
  await settle(3000);
  after = costOf(agentPid());
  note(
    "unchanged pod, one update and re-verification: agent CPU",
    `${(((totalOf(after) - totalOf(before)) * 1000) / PODS).toFixed(2)} ms`,
  );
  note("  of which children (forks)", seconds(after.children - before.children));

  const { add, empty } = measurePlugin(sandbox, 101);
  note("plugin ADD of a captured pod, p50", `${add.toFixed(2)} ms`);
  note("  an empty static program, p50", `${empty.toFixed(2)} ms  (ratio ${(add / empty).toFixed(1)})`);

  await sandbox.endAgent("SIGKILL");
  began = performance.now();
  await sandbox.startAgent();
  note(`restart beside ${PODS} captured pods: until ready, wall`, seconds((performance.now() - began) / 1000));
  await settle(2000);
  note("  agent CPU (with its children)", seconds(totalOf(costOf(agentPid()))));
  note("  RSS", `${rssOf(agentPid()).toFixed(1)} MiB`);
});

if (process.argv.includes("--json")) console.log(JSON.stringify(Object.fromEntries(rows), null, 2));
