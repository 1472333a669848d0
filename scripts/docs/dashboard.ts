// SPDX-License-Identifier: Apache-2.0
// Runs a cluster of two sandbox nodes for three minutes, with a Prometheus that scrapes both, and draws what it answers
// to the dashboard's queries and tells of the alerts: npx tsx scripts/docs/dashboard.ts [--draw]. Needs root, scripts/build and Debian's
// prometheus. --draw only draws the recording that is there.
import { readFileSync, writeFileSync } from "node:fs";
import { cpus, release } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { Sandbox, type SandboxOptions } from "../../src/sandbox/sandbox.ts";
import { until } from "../../src/sandbox/until.ts";
import { readDashboard } from "../../test/support/dashboard.ts";
import { ALERTS, RULES } from "../../test/support/monitoring.ts";
import { Prometheus } from "../../test/support/prometheus.ts";
import { alertsSvg } from "./dashboard/alerts.ts";
import { LivelyCluster } from "./dashboard/lively.ts";
import { dashboardSvg } from "./dashboard/picture.ts";
import { type Recording, record } from "./dashboard/recording.ts";

const ROOT = join(import.meta.dirname, "../..");
const IMAGES = join(ROOT, "docs/images");
const DATA = join(IMAGES, "dashboard.json");
const STEP = 2;
const RATE_SECONDS = 10;
const METRICS_PORT = 15014;

const { values } = parseArgs({ options: { draw: { type: "boolean", default: false } } });
process.chdir(ROOT);
const dashboard = readDashboard();
if (!values.draw) writeFileSync(DATA, `${JSON.stringify(await live(), null, 2)}\n`);
const recording = JSON.parse(readFileSync(DATA, "utf8")) as Recording;
writeFileSync(join(IMAGES, "dashboard.svg"), dashboardSvg(dashboard, recording));
writeFileSync(join(IMAGES, "alerts.svg"), alertsSvg(ALERTS, recording));
console.log(`${IMAGES}: drawn`);

async function live(): Promise<Recording> {
  const options: SandboxOptions = {
    program: join(ROOT, "dist/agent.mjs"),
    // Its agents are in their nodes' networks, where Prometheus reaches them.
    chart: "1.24",
    ztunnel: undefined,
    agentEnv: { AMBIENT_CNI_POD_ENGINE: "true", AMBIENT_CNI_DRAIN_SECONDS: "2" },
  };
  const one = await Sandbox.create(options);
  try {
    const two = await Sandbox.create({ ...options, joins: one });
    try {
      return await recorded(one, two);
    } finally {
      await two.stop();
    }
  } finally {
    await one.stop();
  }
}

async function recorded(one: Sandbox, two: Sandbox): Promise<Recording> {
  const cluster = new LivelyCluster([one, two]);
  await cluster.prepare();
  const targets = { node1: `127.0.0.1:${METRICS_PORT}`, node2: `${two.network.uplink4}:${METRICS_PORT}` };
  const prometheus = await Prometheus.start(one.node, targets, resolve(RULES));
  await until("both agents are scraped", async () => {
    const now = Date.now() / 1000;
    return (await prometheus.range("up == 1", now, now, 1)).length === 2;
  });
  const start = Date.now() / 1000;
  await cluster.run(console.log);
  const [{ model = "" } = {}] = cpus();
  const note = `Two sandbox nodes for ${cluster.seconds / 60} minutes, scraped every second, rates over ${RATE_SECONDS} s; Linux ${release()}, ${cpus().length} CPUs (${model.trim()}), ${new Date().toISOString().slice(0, 10)}`;
  return record(
    dashboard,
    prometheus,
    { start, end: start + cluster.seconds, step: STEP, rateSeconds: RATE_SECONDS },
    note,
  );
}
