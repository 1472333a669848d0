// SPDX-License-Identifier: Apache-2.0
// ztunnels come and go, each in a process and cgroup of its own: their listeners are found whoever sees
// them first, and the original destination is answered from the first connection on.
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { afterEach, beforeEach, expect, test } from "vitest";
import { HOME, KNOBS, SCHEMA } from "../../../../src/dataplane/ebpf/node.ts";
import { ZtunnelHooks } from "../../../../src/dataplane/ebpf/ztunnels.ts";
import type { BpfNode } from "../../../../src/native/bpf.ts";
import { native } from "../../../../src/native/load.ts";
import type { Cgroup } from "../../../../src/sys/cgroup.ts";
import { type Fault, Faults } from "../../../support/faulty-binding.ts";
import { cgroupAt, freshBpffs, LabCgroups, makeCgroup } from "../../../support/lab-bpf.ts";
import { ChoiceLab } from "../../../support/lab-choice.ts";
import { quiet, specOf } from "../../../support/lab-dataplane.ts";
import { expectAlive, TrafficLab } from "../../../support/lab-traffic.ts";
import type { Accepted } from "../../../support/lab-ztunnel.ts";

/** Two ztunnel pods with two containers each, beside everything else in the root. */
class TwoPods extends LabCgroups {
  readonly made: Cgroup[] = [];
  /** In which container the ztunnel that connects is; none: it can't be told. */
  next: Cgroup | undefined;

  container(pod: 0 | 1, name: 0 | 1): Cgroup {
    const found = this.made[pod * 3 + name + 1];
    if (found === undefined) throw new Error("no such container");
    return found;
  }

  constructor() {
    super();
    for (const pod of ["zt0", "zt1"]) {
      const cgroup = makeCgroup(pod);
      this.made.push(cgroup);
      for (const name of ["c0", "c1"]) {
        mkdirSync(join(cgroup.path, name));
        this.made.push(cgroupAt(join(cgroup.path, name)));
      }
    }
  }

  override withId(id: bigint): Cgroup | undefined {
    return this.made.find((cgroup) => cgroup.id === id) ?? super.withId(id);
  }
  override podOf(cgroup: Cgroup): Cgroup {
    return this.made.find(({ path }) => cgroup.path.startsWith(`${path}/`)) ?? cgroup;
  }
  override ofPeer(): Cgroup[] {
    return this.next === undefined ? [] : [this.next];
  }
  remove(): void {
    for (const { path } of this.made.toReversed()) rmdirSync(path);
  }
}

class ZtunnelProcess {
  readonly #lines: AsyncIterator<string>;

  constructor(
    readonly process: ChildProcessByStdio<Writable, Readable, null>,
    readonly cgroup: Cgroup,
  ) {
    this.#lines = createInterface({ input: process.stdout })[Symbol.asyncIterator]();
  }

  async ask(what: "listen" | "close" | "accepted"): Promise<readonly Accepted[]> {
    this.process.stdin.write(`${what}\n`);
    const { value, done } = await this.#lines.next();
    if (done === true) throw new Error("ztunnel died");
    return JSON.parse(value);
  }

  async kill(): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const gone = once(this.process, "exit");
    this.process.kill("SIGKILL");
    await gone;
  }
}

let traffic: TrafficLab;
let bpffs: string;
let cgroups: TwoPods;
let agent: ChoiceLab;
const ztunnels: ZtunnelProcess[] = [];

beforeEach(async () => {
  bpffs = freshBpffs();
  cgroups = new TwoPods();
  traffic = await TrafficLab.create();
  await traffic.ztunnel.close();
  agent = await ChoiceLab.start({ bpffs: { path: bpffs }, cgroups });
});
afterEach(async () => {
  for (const ztunnel of ztunnels.splice(0)) await ztunnel.kill();
  agent.dataplane.close();
  native().bpfRemove(bpffs);
  await traffic.close();
  cgroups.remove();
});

const pod = () => traffic.lab.pod.netns;

function ztunnelIn(cgroup: Cgroup): ZtunnelProcess {
  const program = join(import.meta.dirname, "../../../support/lab-ztunnel-process.ts");
  const netns = `/proc/${process.pid}/fd/${pod().fd}`;
  const ztunnel = new ZtunnelProcess(
    spawn(process.execPath, ["--import", "tsx", program, cgroup.path, netns], { stdio: ["pipe", "pipe", "inherit"] }),
    cgroup,
  );
  ztunnels.push(ztunnel);
  return ztunnel;
}

function meet({ cgroup }: ZtunnelProcess, connection: number): void {
  cgroups.next = cgroup;
  agent.dataplane.meet({ connection, pid: 0, pidfd: -1 });
}

/** New connections of every way are answered, by this ztunnel, which knows where they were meant to go. */
async function expectAnsweredBy(ztunnel: ZtunnelProcess): Promise<void> {
  const before = await ztunnel.ask("accepted");
  const calls = await traffic.openAll();
  const { pod: own, client } = traffic.lab;
  expect((await ztunnel.ask("accepted")).slice(before.length).map(({ original }) => original)).toEqual([
    { address: own.ipv4, port: 8080 },
    { address: client.ipv4, port: 80 },
    { address: own.ipv6, port: 8080 },
    { address: client.ipv6, port: 80 },
  ]);
  await expectAlive(calls);
  for (const call of calls) call.close();
}

test("a container restarted in place is answered without the agent: the hooks are on its pod", async () => {
  const first = ztunnelIn(cgroups.container(0, 0));
  await first.ask("accepted");
  meet(first, 1);
  await first.ask("listen");
  expect(await agent.dataplane.capture(pod(), specOf(traffic.lab))).toBe("ebpf");
  await expectAnsweredBy(first);
  agent.dataplane.close();
  await first.kill();
  const second = ztunnelIn(cgroups.container(0, 1));
  await second.ask("listen");
  await expectAnsweredBy(second);
});

test("a new pod's ztunnel takes over as it listens; when it dies the old one answers again", async () => {
  const old = ztunnelIn(cgroups.container(0, 0));
  await old.ask("accepted");
  meet(old, 1);
  await old.ask("listen");
  await agent.dataplane.capture(pod(), specOf(traffic.lab));
  await expectAnsweredBy(old);
  const lasting = await traffic.openAll();
  const young = ztunnelIn(cgroups.container(1, 0));
  await young.ask("accepted");
  meet(young, 2);
  // Met, and not listening yet: the old one serves.
  await expectAnsweredBy(old);
  await young.ask("listen");
  await expectAnsweredBy(young);
  await expectAlive(lasting);
  await young.kill();
  agent.dataplane.listenersOpened(pod());
  await expectAnsweredBy(old);
  await expectAlive(lasting);
  for (const call of lasting) call.close();
});

test("an agent that starts between two ztunnels goes on with the newer one", async () => {
  for (const pair of [0, 1] as const) {
    const [old, young] = [ztunnelIn(cgroups.container(pair, 0)), ztunnelIn(cgroups.container(pair === 0 ? 1 : 0, 1))];
    for (const [connection, ztunnel] of [old, young].entries()) {
      await ztunnel.ask("accepted");
      meet(ztunnel, connection + 1);
      await ztunnel.ask("listen");
      await agent.dataplane.capture(pod(), specOf(traffic.lab));
    }
    await expectAnsweredBy(young);
    agent.dataplane.close();
    agent = await ChoiceLab.start({ bpffs: { path: bpffs }, cgroups });
    await expectAnsweredBy(young);
    for (const ztunnel of [old, young]) await ztunnel.kill();
  }
});

test("a ztunnel that listened before its cgroup was known is found by its listeners", async () => {
  const ztunnel = ztunnelIn(cgroups.container(0, 0));
  await ztunnel.ask("listen");
  agent.dataplane.meet({ connection: 1, pid: 0, pidfd: -1 });
  expect(agent.ebpf.node.ztunnels.hooked).toEqual([]);
  expect(await agent.dataplane.capture(pod(), specOf(traffic.lab))).toBe("ebpf");
  expect(agent.ebpf.node.ztunnels.hooked.map(({ path }) => path)).toEqual([cgroups.podOf(ztunnel.cgroup).path]);
  await expectAnsweredBy(ztunnel);
});

test.each<Fault>(["killed", "refused"])(
  "whatever write about a successor is %s, no connection is lost",
  async (fault) => {
    const faults = new Faults();
    const dir = join(bpffs, HOME, `v${SCHEMA}`);
    const [faulty, bpf] = [faults.binding().bpfOpen(dir, KNOBS), native().bpfOpen(dir, KNOBS)];
    const cookie = native().netnsCookie(pod().fd);
    const hooksOf = (node: BpfNode) => {
      const hooks = new ZtunnelHooks(native(), node, cgroups, quiet);
      hooks.adopt();
      return hooks;
    };
    let [old, young] = [ztunnelIn(cgroups.container(0, 0)), ztunnelIn(cgroups.container(1, 0))];
    await Promise.all([old, young].map((ztunnel) => ztunnel.ask("accepted")));
    meet(old, 1);
    await old.ask("listen");
    await agent.dataplane.capture(pod(), specOf(traffic.lab));
    for (let writes = 0, unmade: string | undefined = ""; unmade !== undefined; writes++) {
      // As one that has never been met.
      bpf.unpin(`ztunnel/${cgroups.podOf(young.cgroup).id}`);
      await expectAnsweredBy(old);
      const lasting = await traffic.openAll();
      const hooks = hooksOf(faulty);
      /** What the dataplane is told; it logs what fails. */
      const tell = (what: () => void) => {
        try {
          what();
        } catch {
          // The fault.
        }
      };
      unmade = await faults.during(fault, writes, async () => {
        tell(() => hooks.hook(young.cgroup));
        await young.ask("listen");
        tell(() => hooks.ensureListeners(pod().fd, cookie));
        for (const call of await traffic.openAll()) call.close();
        await old.ask("close");
        tell(() => hooks.ensureListeners(pod().fd, cookie));
      });
      if (fault === "killed") {
        const next = hooksOf(bpf);
        next.hook(young.cgroup);
        next.ensureListeners(pod().fd, cookie);
      }
      await expectAnsweredBy(young);
      await expectAlive(lasting);
      for (const call of lasting) call.close();
      [old, young] = [young, old];
    }
    for (const node of [faulty, bpf]) node.close();
  },
);
