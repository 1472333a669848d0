// SPDX-License-Identifier: Apache-2.0
// docs/MIGRATION-SIDECAR.md, step by step: what it says the commands print is what they print, and the pods talk
// to each other at each step. `-u` writes it into the page.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import type { RunningPod } from "../../src/sandbox/kubelet.ts";
import { ipOf } from "../../src/sandbox/pod-records.ts";
import { until } from "../../src/sandbox/until.ts";
import { onNode } from "../support/cli.ts";
import { appOf, httpUrl, LABEL, REDIRECTION, withSandbox } from "../support/sandbox.ts";
import { Terminal } from "../support/terminal.ts";
import { withTranscripts } from "../support/transcript.ts";

const DOCUMENT = fileURLToPath(new URL("../../docs/MIGRATION-SIDECAR.md", import.meta.url));
const NAMESPACE = "shop";
const NAMES = ["client", "server"] as const;
type Name = (typeof NAMES)[number];

test("a namespace goes from sidecars to ambient, and back", async () => {
  await withSandbox({}, async (sandbox) => {
    const terminal = new Terminal(sandbox);
    const pods = new Map<Name, RunningPod>();
    const podOf = (name: Name): RunningPod => {
      const pod = pods.get(name);
      if (pod === undefined) throw new Error(`no pod ${name}`);
      return pod;
    };
    const describe = () => {
      const known = [...pods.values()].map(({ name, ips, sidecar }) => {
        const protocol = sidecar === undefined ? ("HBONE" as const) : ("TCP" as const);
        return { namespace: NAMESPACE, name, serviceAccount: "default", ips, protocol };
      });
      sandbox.describeMesh(known, []);
    };
    /** kubectl rollout restart: a new pod, with or without a sidecar. */
    const restart = async (name: Name, sidecar: boolean) => {
      const before = pods.get(name);
      if (before !== undefined) await sandbox.kubelet.remove(before);
      pods.set(name, await sandbox.kubelet.run({ namespace: NAMESPACE, name, sidecar }));
      describe();
      if (sidecar) return;
      await until(`${name} is enrolled`, () => sandbox.annotation(NAMESPACE, name, REDIRECTION) === "enabled");
    };
    /** Both ways, and each knows who called. */
    const expectToTalk = async () => {
      for (const [from, to] of [NAMES, [...NAMES].reverse()] as [Name, Name][]) {
        const [caller, called] = [podOf(from), podOf(to)];
        called.sidecar?.forget();
        const seen = await appOf(caller).fetch(httpUrl(called));
        const client = called.sidecar === undefined ? ipOf(caller, 4) : "127.0.0.6";
        expect(seen).toMatchObject({ server: to, clientSeen: expect.stringMatching(`^${client}:`) });
        await called.sidecar?.until((event) => event.event === "accepted" && event.port === 15006);
      }
    };

    sandbox.api.put({ kind: "Namespace", metadata: { name: NAMESPACE, labels: { "istio-injection": "enabled" } } });
    describe();
    await sandbox.startAgent();
    sandbox.startZtunnel();
    await sandbox.ztunnelsConnected(1);
    for (const name of NAMES) await restart(name, true);
    await expectToTalk();
    await terminal.type(
      "sidecars",
      "ambient-cni pods -n shop",
      "ambient-cni inspect server",
      "ambient-cni verify --all",
    );

    const labels = (all: Record<string, string>) =>
      sandbox.api.put({ kind: "Namespace", metadata: { name: NAMESPACE, labels: all } });
    labels({ [LABEL]: "ambient" });
    await expectToTalk();
    await until("the agent knows", async () =>
      (await onNode(sandbox, "inspect", "shop/server")).stdout.includes(`${LABEL}=ambient`),
    );
    await terminal.type("labelled", "ambient-cni inspect server | sed -n '/^mesh/,/^wanted/p'");
    await terminal.type("both", "ambient-cni check --category pods | grep -A2 AMB-420");

    await restart("server", false);
    await expectToTalk();
    await terminal.type("server", "ambient-cni pods -n shop", "ambient-cni verify server");
    await restart("client", false);
    await expectToTalk();
    await terminal.type("client", "ambient-cni pods -n shop", "ambient-cni status");

    labels({ [LABEL]: "ambient", "istio-injection": "enabled" });
    await restart("server", true);
    await expectToTalk();
    await terminal.type("back", "ambient-cni pods -n shop");
    await restart("client", true);
    await expectToTalk();
    // Last: nobody is ambient any more, so nobody leaves the mesh.
    labels({ "istio-injection": "enabled" });
    await expectToTalk();
    const document = readFileSync(DOCUMENT, "utf8");
    await expect(withTranscripts(document, terminal.transcripts)).toMatchFileSnapshot(DOCUMENT);
  });
});
