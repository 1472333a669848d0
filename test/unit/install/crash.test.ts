// SPDX-License-Identifier: Apache-2.0
// kill -9 before every single change of the file system, and at any time: what runtimes see is at every
// moment the original or the original with our plugin, and the next run finishes what was begun. faults.test.ts has
// more courses, without a process for each.
import { type ChildProcess, spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { InstallerConfig } from "../../../install/installer.ts";
import { bundled } from "../../support/bundled.ts";
import { CniNode, ENTRY, fixture, PLUGIN } from "../../support/cni-node.ts";
import type { InstallOrder } from "../../support/install-process.ts";
import { runtimeView } from "../../support/runtime-view.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

const scratch = new ScratchDir();
let program: string;
beforeAll(async () => {
  program = await bundled("install-process.ts", scratch);
});
afterAll(() => scratch[Symbol.dispose]());

const run = (order: InstallOrder): ChildProcess =>
  spawn(process.execPath, [program, JSON.stringify(order)], { stdio: ["ignore", "ignore", "inherit"] });
const end = (child: ChildProcess) =>
  new Promise<number | string | null>((resolve) => child.once("exit", (code, signal) => resolve(code ?? signal)));

/** Plugins of the configuration in use, in order, ours as one word. */
function seen(node: CniNode): string[] {
  const plugins = runtimeView(node.netDir)?.plugins ?? [];
  return plugins.map((plugin) => (JSON.parse(plugin).type === "istio-cni" ? "ours" : plugin));
}

const snapshot = (node: CniNode) => node.names().map((name) => [name, node.read(name)] as const);

interface Scenario {
  readonly files: Readonly<Record<string, Buffer>>;
  readonly config?: Partial<InstallerConfig>;
  /** The plugin is on the node already; default true. */
  readonly withPlugin?: boolean;
}

const CALICO = fixture("10-calico.conflist");
const MULTUS = fixture("00-multus.conf");
const BRIDGE = Buffer.from('{"type":"bridge","name":"multus-cni-network","cniVersion":"0.3.1"}');
const OWNED = { istioOwnedConfig: true };

const SCENARIOS: Readonly<Record<string, Scenario>> = {
  "a list": { files: { "10-calico.conflist": CALICO }, withPlugin: false },
  "a .conf": { files: { "00-multus.conf": MULTUS, "10-calico.conflist": CALICO } },
  "istio-owned": { files: { "10-x.conf": MULTUS }, config: OWNED },
};

function prepare({ files, withPlugin = true }: Scenario): CniNode {
  const node = new CniNode();
  for (const [name, content] of Object.entries(files)) node.write(name, content);
  if (withPlugin) writeFileSync(node.binary, PLUGIN, { mode: 0o755 });
  return node;
}

describe.each(Object.entries(SCENARIOS))("%s", (_name, scenario) => {
  it.each(["install", "restore"] as const)("%s, killed before each of its changes", async (action) => {
    const begin = async () => {
      const node = prepare(scenario);
      if (action === "restore") await node.installer(scenario.config).install();
      return node;
    };
    using whole = await begin();
    const foreign = seen(whole).filter((plugin) => plugin !== "ours");
    await whole.installer(scenario.config)[action]();
    expect(seen(whole)).toEqual(action === "install" ? expect.arrayContaining([...foreign, "ours"]) : foreign);

    for (let killAt = 1; ; killAt++) {
      using node = await begin();
      const status = await end(run({ config: node.config(scenario.config), entry: ENTRY, action, killAt }));
      const view = seen(node);
      expect(view.filter((plugin) => plugin !== "ours")).toEqual(foreign);
      expect(view.length - foreign.length).toBeLessThanOrEqual(1);
      await node.installer(scenario.config)[action]();
      expect(snapshot(node)).toEqual(snapshot(whole));
      if (status === 0) {
        expect(killAt).toBeGreaterThan(1);
        return;
      }
      expect(status).toBe("SIGKILL");
    }
  });
});

it("killed at any time while it installs and restores, under the eyes of a runtime", async () => {
  using node = prepare({ files: { "00-multus.conf": MULTUS, "05-cilium.json": BRIDGE } });
  const foreign = seen(node);
  for (let round = 0; round < 4; round++) {
    const child = run({ config: node.config(), entry: ENTRY, action: "install", killAt: 0, forever: true });
    const ended = end(child);
    // Until it has come and gone several times, and then at any moment.
    for (let changes = 0, last = -1, left = 10 + round * 7; changes < 6 || left > 0; ) {
      await new Promise((resolve) => setImmediate(resolve));
      let view: string[];
      try {
        view = seen(node);
      } catch (error) {
        // Listed, and renamed before it was read: a runtime reads again upon that event.
        if (!String(error).includes("ENOENT")) throw error;
        continue;
      }
      expect(view.filter((plugin) => plugin !== "ours")).toEqual(foreign);
      if (view.length !== last) changes++;
      if (changes >= 6) left--;
      last = view.length;
    }
    child.kill("SIGKILL");
    expect(await ended).toBe("SIGKILL");
    expect(seen(node).filter((plugin) => plugin !== "ours")).toEqual(foreign);
  }
  await node.installer().restore();
  expect(snapshot(node)).toEqual([
    ["00-multus.conf", MULTUS.toString("latin1")],
    ["05-cilium.json", BRIDGE.toString("latin1")],
  ]);
});
