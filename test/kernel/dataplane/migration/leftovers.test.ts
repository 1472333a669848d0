// SPDX-License-Identifier: Apache-2.0
// What upstream's istio-cni has left in a pod goes however the pod's way ends, nothing else goes with it, and
// whatever fails in between, the pod is never let out.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { CaptureSpec } from "../../../../src/core/ports/dataplane.ts";
import type { NodeDataplane } from "../../../../src/dataplane/dataplane.ts";
import { UpstreamRules } from "../../../../src/dataplane/upstream/upstream.ts";
import { native } from "../../../../src/native/load.ts";
import { forkCount } from "../../../../src/sys/exec.ts";
import { LabAgent } from "../../../support/lab-agent.ts";
import { freshBpffs } from "../../../support/lab-bpf.ts";
import { specOf, startDataplane, stateOf, withoutSysctls } from "../../../support/lab-dataplane.ts";
import { EBPF, IPTABLES_LEGACY, IPTABLES_NFT, NFTABLES } from "../../../support/lab-engines.ts";
import { expectAlive, TrafficLab, WAYS } from "../../../support/lab-traffic.ts";
import { enrolByUpstream, UPSTREAM_FORMS, unenrolByUpstream } from "../../../support/lab-upstream.ts";
import { inNetns } from "../../../support/netns-lab.ts";

let dataplane: NodeDataplane;
let traffic: TrafficLab;
let spec: CaptureSpec;
let before: string;

const pod = () => traffic.lab.pod.netns;
const inPod = (command: string) => inNetns(pod(), "sh", "-c", command);

beforeEach(async () => {
  traffic = await TrafficLab.create();
  spec = specOf(traffic.lab);
  before = await stateOf(pod());
});
afterEach(() => traffic.close());

/** Without built-in chains, which iptables-nft adds where it needs one and leaves there. */
async function rules(): Promise<string> {
  const saves = ["iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"];
  return await inPod(`for save in ${saves.join(" ")}; do $save | grep -E '^-A|^:.* - '; done; nft list table inet own`);
}

async function expectDirect(): Promise<void> {
  const seen = traffic.accepted;
  for (const call of await traffic.openAll()) call.close();
  expect(traffic.accepted).toBe(seen);
}

async function expectCaptured(): Promise<void> {
  const seen = traffic.accepted;
  for (const call of await traffic.openAll()) call.close();
  expect(traffic.accepted).toBe(seen + WAYS.length);
}

test("tables that upstream's rules and the shield before them are in go with ours, where iptables-nft writes", async () => {
  const own = await startDataplane(native(), IPTABLES_NFT);
  try {
    await enrolByUpstream(pod(), "iptables-nft");
    await new UpstreamRules(native()).shield(pod().fd);
    await own.capture(pod(), spec, true);
    await own.release(pod());
    expect(await stateOf(pod())).toBe(before);
  } finally {
    own.close();
  }
});

describe.each([EBPF, NFTABLES, IPTABLES_LEGACY])("$name", (engine) => {
  beforeAll(async () => {
    dataplane = await startDataplane(native(), engine);
  });
  afterAll(() => dataplane.close());

  test.each(UPSTREAM_FORMS)("a pod of upstream's in the form %s is drained and released", async (form) => {
    await enrolByUpstream(pod(), form);
    const old = [...(await traffic.openAll()), ...(await traffic.openHbone())];
    await dataplane.drain(pod(), spec);
    await expectDirect();
    await expectAlive(old);
    expect(dataplane.proxiedConnections(pod())).toBe(old.length);
    expect(dataplane.observe(pod(), spec).mode).toBe("absent");
    expect(dataplane.present(pod())).toBe(true);
    for (const call of old) call.close();
    await expect.poll(() => dataplane.proxiedConnections(pod())).toBe(0);
    await dataplane.release(pod());
    expect(dataplane.present(pod())).toBe(false);
    expect(await stateOf(pod())).toBe(before);
  });

  test("a pod in the middle of it is drained, captured again, drained and released", async () => {
    await enrolByUpstream(pod(), "iptables-nft");
    const old = await traffic.openAll();
    await dataplane.capture(pod(), spec, true);
    const young = await traffic.openAll();
    await dataplane.drain(pod(), spec);
    await expectDirect();
    await expectAlive([...old, ...young]);
    await dataplane.capture(pod(), spec, true);
    await expectCaptured();
    await expectAlive([...old, ...young]);
    await dataplane.drain(pod(), spec);
    await expectDirect();
    await expectAlive([...old, ...young]);
    await dataplane.release(pod());
    expect(await stateOf(pod())).toBe(before);
    for (const call of [...old, ...young]) call.close();
  });

  // An agent of upstream's that is started again may choose another variant and see nothing of the first.
  test("rules of all forms at once", async () => {
    for (const form of UPSTREAM_FORMS) await enrolByUpstream(pod(), form);
    const old = await traffic.openAll();
    await dataplane.capture(pod(), spec, true);
    await expectCaptured();
    await expectAlive(old);
    for (const call of old) call.close();
    await expect.poll(() => dataplane.observe(pod(), spec).mode).toBe("differs");
    await dataplane.capture(pod(), spec, true);
    expect(dataplane.observe(pod(), spec)).toEqual({ mode: "captured", engine: engine.engine, differences: [] });
    await dataplane.release(pod());
    expect(await stateOf(pod())).toBe(before);
  });

  test("without open connections upstream's rules go in the first pass, and a captured pod costs no fork", async () => {
    await enrolByUpstream(pod(), "nftables");
    await dataplane.capture(pod(), spec, true);
    await dataplane.capture(pod(), spec, true);
    const forks = forkCount();
    expect(dataplane.observe(pod(), spec)).toEqual({ mode: "captured", engine: engine.engine, differences: [] });
    await dataplane.capture(pod(), spec, true);
    expect(forkCount()).toBe(forks);
    expect(native().nftTables(pod().fd)).toEqual(engine === NFTABLES ? ["inet ambient-cni"] : []);
    await dataplane.release(pod());
    expect(await stateOf(pod())).toBe(before);
  });

  test.each(["legacy", "nft"])("what is not upstream's stays as it is in tables of iptables-%s", async (variant) => {
    const iptables = `iptables-${variant}`;
    await inPod(
      `${iptables} -t nat -A PREROUTING -p tcp --dport 9 -j ACCEPT; ${iptables} -t mangle -N OWN; ` +
        `${iptables} -t mangle -A OUTPUT -p udp -j OWN; nft add table inet own; nft add chain inet own istio-output`,
    );
    const own = await rules();
    await enrolByUpstream(pod(), `iptables-${variant}` as "iptables-nft");
    // Into its chains: goes with them, as when upstream un-enrols. From elsewhere: would lead nowhere.
    await inPod(
      `${iptables} -t nat -I ISTIO_OUTPUT -p tcp --dport 7777 -j RETURN; ${iptables} -t mangle -A FORWARD -p udp -j ISTIO_PRERT`,
    );
    await dataplane.capture(pod(), spec, true);
    await dataplane.capture(pod(), spec, true);
    await expectCaptured();
    await dataplane.release(pod());
    expect(await rules()).toBe(own);
  });

  test("a pod that upstream has captured and we can't is left to it", async () => {
    await enrolByUpstream(pod(), "iptables-nft");
    // Eats our verification, which has a mark of its own, and nothing else.
    const eats = ["0xac111", "0xad111"].map((mark) => `nft add rule inet fw in meta mark ${mark} drop`).join("; ");
    await inPod(
      `nft add table inet fw; nft add chain inet fw in '{ type filter hook input priority 0; }'; ${eats};` +
        `nft add rule inet fw in ip daddr 255.0.0.0/8 tcp flags syn drop; nft add rule inet fw in ip6 daddr fd16:9254:7127::/48 tcp flags syn drop`,
    );
    const load = traffic.load();
    await load.more(20);
    await expect(dataplane.capture(pod(), spec, true)).rejects.toThrow(/verification|captured/);
    await load.more(20);
    const { failures, uncaptured } = await load.end();
    expect(failures).toEqual([]);
    expect(uncaptured).toBe(0);
    expect(dataplane.observe(pod(), spec).differences).toEqual(["istio-cni's rules redirect its connections"]);
    await unenrolByUpstream(pod(), "iptables-nft");
  });
});

test("a sidecar's rules are none of ambient mode's", async () => {
  dataplane = await startDataplane();
  await inPod(
    "iptables-nft -t nat -N ISTIO_OUTPUT; iptables-nft -t nat -A OUTPUT -p tcp -j ISTIO_OUTPUT; " +
      "iptables-nft -t nat -A ISTIO_OUTPUT -d 192.0.2.9 -j RETURN; iptables-nft -t mangle -N ISTIO_INBOUND",
  );
  const sidecar = await stateOf(pod());
  expect(dataplane.present(pod())).toBe(false);
  expect(dataplane.observe(pod(), spec).mode).toBe("absent");
  await dataplane.capture(pod(), spec);
  await dataplane.release(pod());
  expect(await stateOf(pod())).toBe(sidecar);
  dataplane.close();
});

describe.each([NFTABLES, IPTABLES_LEGACY])("where a pod's sysctls can't be set, by $name", (engine) => {
  test("connections that upstream's rules have redirected live on, with ours of all ages", async () => {
    dataplane = await startDataplane(withoutSysctls, engine);
    await enrolByUpstream(pod(), "iptables-nft");
    const old = await traffic.openAll();
    const load = traffic.load();
    await load.more(20);
    await dataplane.capture(pod(), spec, true);
    const young = await traffic.openAll();
    for (const call of old.splice(0, WAYS.length / 2)) call.close();
    await dataplane.capture(pod(), spec, true);
    await load.more(20);
    expect((await load.end()).failures).toEqual([]);
    await expectAlive([...old, ...young]);
    expect(dataplane.observe(pod(), spec).mode).toBe("captured");
    await dataplane.release(pod());
    expect(await stateOf(pod())).toBe(before);
    dataplane.close();
  });
});

describe.each(["ebpf", "nftables"] as const)("agents that are killed while they take over with %s", (engine) => {
  const agents: LabAgent[] = [];
  let bpffs: string;
  beforeEach(() => {
    bpffs = freshBpffs();
  });
  afterEach(async () => {
    for (const agent of agents.splice(0)) await agent.kill();
    native().bpfRemove(bpffs);
  });

  async function start(): Promise<LabAgent> {
    const agent = await LabAgent.start([pod()], { bpffs, engine });
    agents.push(agent);
    return agent;
  }

  test("the next one finishes, and no connection notices", async () => {
    await enrolByUpstream(pod(), "iptables-nft");
    const old = await traffic.openAll();
    for (const delay of [6, 15]) {
      const agent = await start();
      const load = traffic.load();
      await load.more(10);
      const captured = agent.capture(spec).catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, delay));
      await agent.kill();
      await captured;
      await load.more(10);
      const { failures, uncaptured } = await load.end();
      expect(failures).toEqual([]);
      expect(uncaptured).toBe(0);
    }
    const last = await start();
    expect(await last.capture(spec)).toBe(engine);
    await expectCaptured();
    await expectAlive(old);
    for (const call of old) call.close();
    await expect.poll(async () => (await last.observe(spec)).mode).toBe("differs");
    await last.capture(spec);
    expect(await last.observe(spec)).toEqual({ mode: "captured", engine, differences: [] });
    await last.call("release");
    expect(await stateOf(pod())).toBe(before);
  });
});
