// SPDX-License-Identifier: Apache-2.0
// Swaps istio-cni's own agent for ours in a sandbox, back, and over again, with requests and long connections going on:
//   npx tsx scripts/try-migration.ts DIR [--engine E] [--native] [--ztunnel PATH]
// DIR holds `install-cni` and `istio-cni`, built from istio's sources (go build ./cni/cmd/...). They can't be had on the
// machines that run the tests, so this is run by hand; test/kernel/dataplane/migration tests the same with rules alone.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { DATAPLANE_MODE_LABEL, REDIRECTION_ANNOTATION } from "../src/core/constants.ts";
import { messageOf } from "../src/core/errors.ts";
import { AppError } from "../src/sandbox/app/remote.ts";
import { demoMesh, NAMESPACE, OUTSIDE } from "../src/sandbox/demo-mesh.ts";
import { Doorway } from "../src/sandbox/doorway.ts";
import type { RunningPod } from "../src/sandbox/kubelet.ts";
import { ipOf } from "../src/sandbox/pod-records.ts";
import { Sandbox } from "../src/sandbox/sandbox.ts";
import { until } from "../src/sandbox/until.ts";

const IMAGES = { "istio-cni": "docker.io/istio/install-cni:test", "ambient-cni": "registry.example/ambient-cni:test" };
type Agent = keyof typeof IMAGES;
const SWAPS: readonly Agent[] = ["ambient-cni", "istio-cni", "ambient-cni"];
/** Who calls whom. */
const PAIRS = [
  ["client", "server"],
  ["outsider", "server"],
  ["client", "outsider"],
] as const;
const SETTLING_MS = 3000;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { engine: { type: "string" }, native: { type: "boolean", default: false }, ztunnel: { type: "string" } },
});
const [dir] = positionals;
if (dir === undefined) throw new Error("name the directory of istio-cni's binaries");

const began = Date.now();
let failures = 0;
const stamp = () => `${((Date.now() - began) / 1000).toFixed(2).padStart(6)} s  `;
const say = (text: string) => console.log(`${stamp()}${text}`);
const expect = (good: boolean, text: string) => {
  if (!good) failures += 1;
  say(`${good ? "√" : "× FAILED:"} ${text}`);
};

const sandbox = await Sandbox.create({
  program: join(import.meta.dirname, "../dist/agent.mjs"),
  chart: "newest",
  ztunnel: values.ztunnel,
  // istio-cni asks for more than our chart grants.
  agentRules: "admin",
  agentEnv: { NATIVE_NFTABLES: String(values.native), SYSTEM_NAMESPACE: "istio-system" },
});
const pods = new Map<string, RunningPod>();

function pod(name: string): RunningPod {
  const found = pods.get(name);
  if (found === undefined) throw new Error(`no pod ${name}`);
  return found;
}

function app(name: string) {
  const { app } = pod(name);
  if (app === undefined) throw new Error(`pod ${name} has no program`);
  return app;
}

const url = (name: string) => `http://${ipOf(pod(name), 4)}:8080/`;
const annotated = (name: string) =>
  until(`${name} is annotated`, () => sandbox.annotation(NAMESPACE, name, REDIRECTION_ANNOTATION) === "enabled");

async function runPod(namespace: string, name: string): Promise<void> {
  pods.set(name, await sandbox.kubelet.run({ namespace, name, serviceAccount: name }));
}

async function start(agent: Agent): Promise<void> {
  const image = { program: join(dir ?? "", "install-cni"), plugin: join(dir ?? "", "istio-cni"), executable: true };
  const env = values.engine === undefined ? {} : { AMBIENT_CNI_ENGINE: values.engine };
  await sandbox.startAgent(true, env, agent === "istio-cni" ? image : undefined);
  say(`${agent} is ready`);
}

async function longConnections(when: string): Promise<void> {
  for (const [from, to] of PAIRS) {
    const said = await app(from)
      .say(`${from}-${to}`, when)
      .catch((error: unknown) => messageOf(error));
    expect(said === when, `${when}: the connection ${from} -> ${to} is alive${said === when ? "" : ` (${said})`}`);
  }
}

/** Requests, one after the other, until told to end. */
class Load {
  requests = 0;
  readonly failed: string[] = [];
  private going = true;
  private readonly work = this.run();

  async end(): Promise<void> {
    this.going = false;
    await this.work;
  }

  private async run(): Promise<void> {
    while (this.going) {
      for (const [from, to] of PAIRS) {
        this.requests += 1;
        const seen = await app(from)
          .fetch(url(to))
          .catch((error: unknown) => error);
        if (seen instanceof AppError || seen instanceof Error)
          this.failed.push(`${stamp()}${from} -> ${to}: ${messageOf(seen)}`);
      }
      await sleep(5);
    }
  }
}

async function swap(agent: Agent): Promise<void> {
  sandbox.daemonSet.put({ image: IMAGES[agent] });
  const milliseconds = await sandbox.endAgent("SIGTERM");
  say(`the agent before has ended in ${Math.round(milliseconds)} ms`);
  await longConnections("between agents");
  await start(agent);
  await sleep(SETTLING_MS);
  await longConnections(`under ${agent}`);
  await runPod(NAMESPACE, "latecomer");
  await annotated("latecomer");
  say("a new pod has started and is annotated");
  await sandbox.kubelet.remove(pod("latecomer"));
}

async function leftovers(): Promise<string> {
  let found = "";
  for (const name of ["client", "server"]) {
    const look =
      "nft list ruleset; iptables-save | grep -v ^#; ip rule | grep 0x111; ip route show table 100; tc filter show dev lo ingress";
    const inside = ["nsenter", `--net=${pod(name).attachment.netns}`, "--", "sh", "-c", `{ ${look}; } 2>&1; true`];
    const { stdout } = await sandbox.node.run(inside, { timeoutMs: 5000 });
    found += stdout.replaceAll(/^Error: ipv4: FIB table does not exist.*\n|^Dump terminated\n/gm, "");
  }
  return found.trim();
}

async function story(): Promise<void> {
  // istio-cni's plugin asks the API itself, from the node; with nftables its agent looks for kubelet's cgroup.
  const doorway = await Doorway.open(sandbox.node.netnsPath, sandbox.api.port);
  const kubelet = sandbox.node.path("kubelet");
  writeFileSync(kubelet, readFileSync("/bin/sleep"), { mode: 0o755 });
  sandbox.node.spawn([kubelet, "infinity"]);
  try {
    for (const name of [NAMESPACE, OUTSIDE]) sandbox.api.put({ kind: "Namespace", metadata: { name } });
    const { workloads, services } = demoMesh();
    sandbox.describeMesh(workloads, services);
    sandbox.daemonSet.put({ image: IMAGES["istio-cni"] });
    await start("istio-cni");
    await runPod(NAMESPACE, "client");
    await runPod(NAMESPACE, "server");
    await runPod(OUTSIDE, "outsider");
    sandbox.startZtunnel();
    sandbox.label(NAMESPACE, DATAPLANE_MODE_LABEL, "ambient");
    for (const name of ["client", "server"]) await annotated(name);
    await until("requests are answered", () =>
      app("client")
        .fetch(url("server"))
        .then(
          () => true,
          () => false,
        ),
    );
    for (const [from, to] of PAIRS) await app(from).open(`${from}-${to}`, ipOf(pod(to), 4), 9090);
    const load = new Load();
    for (const agent of SWAPS) await swap(agent);
    await load.end();
    expect(load.failed.length === 0, `${load.failed.length} of ${load.requests} requests failed`);
    for (const failed of load.failed) console.log(failed);
    sandbox.label(NAMESPACE, DATAPLANE_MODE_LABEL, null);
    for (const name of ["client", "server"]) {
      await until(
        `${name} is let out`,
        () => sandbox.annotation(NAMESPACE, name, REDIRECTION_ANNOTATION) === undefined,
      );
    }
    await longConnections("out of the mesh");
    for (const [from, to] of PAIRS) await app(from).close(`${from}-${to}`);
    await until("the pods are clean", async () => (await leftovers()) === "").catch(() => undefined);
    const left = await leftovers();
    expect(left === "", left === "" ? "nothing is left in the pods" : `left in the pods: ${left}`);
  } finally {
    doorway.close();
  }
}

try {
  await story();
} catch (error) {
  expect(false, messageOf(error));
  console.log(sandbox.agentLog().split("\n").slice(-40).join("\n"));
} finally {
  await sandbox.stop();
}
process.exitCode = failures === 0 ? 0 : 1;
