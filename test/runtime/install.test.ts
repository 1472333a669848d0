// SPDX-License-Identifier: Apache-2.0
// The agent in its container meets a node whose CNI directory is full, read-only or hostile.
import { beforeAll, beforeEach, expect, test } from "vitest";
import { SYSTEM_NAMESPACE } from "../../src/sandbox/accounts.ts";
import { ipOf } from "../../src/sandbox/pod-records.ts";
import { until } from "../../src/sandbox/until.ts";
import { ownChart } from "../support/runtime/charts.ts";
import { type CriPod, POD_PORT } from "../support/runtime/cri-kubelet.ts";
import { useCluster } from "../support/runtime/use-cluster.ts";

const CONF_DIR = "/etc/cni/net.d";
const PRIMARY = `${CONF_DIR}/10-sandbox.conflist`;

const cluster = useCluster(() => ({ chart: ownChart() }), { bare: true });
let primary = "";
let pods = 0;

/** Runs a script on the node. */
async function onNode(script: string): Promise<string> {
  const { stdout } = await cluster().sandbox.node.run(["sh", "-ec", script], { timeoutMs: 10_000 });
  return stdout;
}

beforeAll(async () => {
  const { containerd, sandbox } = cluster();
  cluster().namespace("shop", "ambient");
  cluster().namespace("legacy", "none");
  primary = sandbox.installed().conf;
  // A file system of its own, with room for one small change. containerd watches what is there when it starts.
  await onNode(`cp ${PRIMARY} /run/primary; mount -t tmpfs -o size=32k tmpfs ${CONF_DIR}; cp /run/primary ${PRIMARY}`);
  await containerd.kill();
  await containerd.start();
});

beforeEach(() => onNode(`cat /run/primary > ${PRIMARY}`));

const chained = async () => (await onNode(`cat ${PRIMARY}`)).includes('"istio-cni"');

/** The agent's pod comes up and does not get ready; resolves to what /readyz says. */
async function unready(reason: string): Promise<string> {
  const { view } = await cluster().startAgent({ wait: false });
  let body = "";
  await until(`it says ${reason}`, async () => {
    const answer = await view.readiness();
    body = answer.body;
    return answer.status === 503 && body.includes(reason);
  });
  return body;
}

/** A pod of the mesh is captured before its first packet, if the plugin is where it should be. */
async function expectCaptured(): Promise<void> {
  const { kubelet } = cluster();
  const server = await kubelet.run({ namespace: "shop", name: `server-${pods++}` });
  const name = `client-${pods++}`;
  const args = ["first", ipOf(server, 4), String(POD_PORT), "marker", name];
  const client = await kubelet.run({ namespace: "shop", name, args });
  await until("its first connection has ended", () => kubelet.output(client).length > 0);
  expect(JSON.parse(kubelet.output(client)[0] ?? "")).toMatchObject({
    server: server.name,
    clientSeen: expect.stringContaining(`${ipOf(client, 4)}:`),
  });
  expect(await hboneConnections(server)).toBeGreaterThan(0);
  for (const pod of [server, client]) await kubelet.remove(pod);
}

/** Connections that ztunnel has taken for a pod on 15008, by the kernel's count of its listeners' children. */
async function hboneConnections(pod: CriPod): Promise<number> {
  const netns = await cluster().kubelet.netns(pod);
  return (await onNode(`nsenter --net=${netns} ss -Htn state established sport = :15008`)).split("\n").length - 1;
}

test("no room for the configuration: it stays as it is and pods outside the mesh start; with room the rest follows by itself", async () => {
  await onNode(`cat /dev/zero > ${CONF_DIR}/filler 2>/dev/null || true`);
  const said = await unready("ENOSPC");
  expect(said).toContain(PRIMARY.slice(CONF_DIR.length));
  expect(await onNode(`cat ${PRIMARY}`)).toBe(primary);
  expect(await onNode(`ls -A ${CONF_DIR}`)).toBe("10-sandbox.conflist\nfiller\n");
  const outside = await cluster().kubelet.run({ namespace: "legacy", name: "outside" });
  await cluster().kubelet.remove(outside);

  await onNode(`rm ${CONF_DIR}/filler`);
  await cluster().agent.ready();
  expect(await chained()).toBe(true);
  await cluster().startZtunnel();
  await expectCaptured();
  await cluster().agent.remove();
});

test("a read-only directory: the agent says what to set, changes nothing, and installs when it may", async () => {
  await onNode(`mount -o remount,ro ${CONF_DIR}`);
  await unready("EROFS");
  expect(cluster().agent.log()).toContain("global.platform");
  expect(await onNode(`cat ${PRIMARY}`)).toBe(primary);
  await onNode(`mount -o remount,rw ${CONF_DIR}`);
  // The container's mount was made from a read-only one, and stays that.
  await cluster().agent.stopContainer();
  await cluster().agent.startContainer();
  await cluster().agent.ready();
  await cluster().agent.view.ztunnelsConnected(1);
  expect(await chained()).toBe(true);
  await expectCaptured();
  await cluster().agent.remove();
});

test("a primary of one plugin becomes a list and comes back; pods from before, between and after are torn down whole", async () => {
  const { kubelet, sandbox } = cluster();
  const traces = cluster().podTraces();
  const { plugins, ...head } = JSON.parse(primary) as { plugins: object[] };
  const single = `${JSON.stringify({ ...plugins[0], ...head })}\n`;
  await onNode(`rm ${PRIMARY}; printf '%s' '${single}' > ${CONF_DIR}/10-sandbox.conf`);
  const listing = () => onNode(`cd ${CONF_DIR}; ls -A`);
  const before = await listing();
  const pods = [await kubelet.run({ namespace: "legacy", name: "before" })];
  await cluster().startAgent();
  expect(await listing()).toBe("10-sandbox.conf.ambient-cni-original\n10-sandbox.conflist\n");
  await cluster().agent.view.ztunnelsConnected(1);
  await expectCaptured();
  pods.push(await kubelet.run({ namespace: "legacy", name: "between" }));

  sandbox.api.delete("DaemonSet", SYSTEM_NAMESPACE, "istio-cni-node");
  await cluster().agent.remove();
  expect(await listing()).toBe(before);
  expect(await onNode(`cat ${CONF_DIR}/10-sandbox.conf`)).toBe(single);
  pods.push(await kubelet.run({ namespace: "legacy", name: "after" }));
  // The network's name was the same all the time, or a plugin's DEL would not find what its ADD left.
  for (const pod of pods) await kubelet.remove(pod);
  expect(cluster().podTraces()).toEqual(traces);
  await onNode(`rm ${CONF_DIR}/10-sandbox.conf`);
});

test("garbage, pipes, loops, directories and huge files beside the primary configuration are left alone; a rewritten primary is chained again", async () => {
  await onNode(`
    mount -o remount,size=64m ${CONF_DIR}
    cd ${CONF_DIR}
    head -c 4096 /dev/urandom > 20-garbage.conflist
    mkfifo 30-pipe.conf
    truncate -s 32m 40-huge.conflist
    mkdir 50-directory.conf
    ln -s 60-loop.conflist 60-loop.conflist
    ln -s /proc/kmsg 70-elsewhere.conf
    head -c 200000 /dev/zero | tr '\\0' '[' > 80-deep.conflist
    printf '{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"istio-cni","cni_agent_run_dir":"/evil"}]}' > 90-ours.conflist
  `);
  const listing = `cd ${CONF_DIR}; ls -lA --time-style=full-iso | grep -v 10-sandbox; sha256sum 20* 80* 90*`;
  const before = await onNode(listing);
  await cluster().startAgent();
  await cluster().agent.view.ztunnelsConnected(1);
  expect(await chained()).toBe(true);
  expect(await onNode(listing)).toBe(before);
  await expectCaptured();
  await onNode(`cp /run/primary ${CONF_DIR}/new; mv ${CONF_DIR}/new ${PRIMARY}`);
  await until("it is chained again", chained);
  await expectCaptured();
});
