// SPDX-License-Identifier: Apache-2.0
// Against a real file system and its events; other programs are played by what the tests write.
import { mkdirSync, renameSync, rmSync, statSync, unlinkSync, watch, writeFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { InstallerConfig } from "../../../install/installer.ts";
import { Keeper } from "../../../install/keeper.ts";
import { systemClock } from "../../../src/core/clock.ts";
import { CniNode, fixture } from "../../support/cni-node.ts";

const CALICO = fixture("10-calico.conflist").toString("latin1");
const MERGED = fixture("10-calico.merged.conflist").toString("latin1");
const CILIUM = fixture("05-cilium.conflist").toString("latin1");
const CILIUM_MERGED = fixture("05-cilium.merged.conflist").toString("latin1");

let node: CniNode;
let keeper: Keeper;
beforeEach(() => {
  node = new CniNode();
});
afterEach(async () => {
  await keeper.stop();
  node[Symbol.dispose]();
});

const start = (config: Partial<InstallerConfig> = {}) => {
  keeper = node.keeper(config);
  keeper.start();
};
const until = (holds: () => void) => vi.waitFor(holds, { timeout: 8000, interval: 5 });
const installed = () => until(() => expect(keeper.missing()).toBeUndefined());
const becomes = (name: string, text: string) => until(() => expect(node.read(name)).toBe(text));
const ready = () => node.metrics.gauges.get("istio_cni_install_ready{}");
const repairs = (what: string) =>
  node.metrics.counts.get(`ambient_cni_install_repairs_total${JSON.stringify({ what })}`) ?? 0;

/** The keeper, installed and with nothing more to do. */
async function settled(): Promise<void> {
  node.write("10-calico.conflist", CALICO);
  start();
  await installed();
  expect(node.read("10-calico.conflist")).toBe(MERGED);
}

describe("waiting", () => {
  it("for a directory that does not exist yet, and for a file in it", async () => {
    rmSync(node.dir.file("net.d"), { recursive: true });
    const cniNetDir = node.dir.file("etc/cni/net.d");
    start({ cniNetDir });
    await until(() => expect(keeper.missing()).toContain(`${cniNetDir} does not exist`));
    expect(ready()).toBeUndefined();
    mkdirSync(node.dir.file("etc"));
    mkdirSync(node.dir.file("etc/cni"));
    mkdirSync(cniNetDir);
    await until(() => expect(keeper.missing()).toContain("no CNI configuration to chain into"));
    writeFileSync(`${cniNetDir}/10-calico.conflist`, CALICO);
    await installed();
    expect(ready()).toBe(1);
    expect(keeper.confPath).toBe(`${cniNetDir}/10-calico.conflist`);
    expect(node.installs("SUCCESS")).toBe(1);
    expect(node.installs("CREATE_CNI_CONFIG_FAILURE")).toBe(2);
  });

  it("for a pinned file, under any of its extensions", async () => {
    node.write("05-cilium.conflist", CILIUM);
    start({ cniConfName: "10-calico.conf" });
    await until(() => expect(keeper.missing()).toContain("10-calico.conf does not exist"));
    node.write("10-calico.conflist", CALICO);
    await installed();
    expect(node.read("05-cilium.conflist")).toBe(CILIUM);
  });

  it("for a file that is written in pieces", async () => {
    start();
    await until(() => expect(keeper.missing()).toContain("no CNI configuration"));
    node.write("10-calico.conflist", CALICO.slice(0, 100));
    await until(() => expect(keeper.missing()).toContain("not JSON"));
    node.write("10-calico.conflist", CALICO);
    await installed();
    expect(node.read("10-calico.conflist")).toBe(MERGED);
  });

  it("for an image without a plugin or a directory for it, by looking again", async () => {
    node.write("10-calico.conflist", CALICO);
    start({ cniBinDir: node.dir.file("later") });
    await until(() => expect(keeper.missing()).toContain("later"));
    expect(node.read("10-calico.conflist")).toBe(CALICO);
    mkdirSync(node.dir.file("later"));
    await installed();
    expect(node.installs("COPY_BINARIES_FAILURE")).toBe(1);
  });
});

describe("what other programs do is put right", () => {
  it("the primary written anew", async () => {
    await settled();
    node.write("10-calico.conflist", CALICO.replace("info", "debug"));
    await becomes("10-calico.conflist", MERGED.replace("info", "debug"));
    await installed();
    expect(repairs("configuration")).toBe(1);
    expect(node.warnings()).toEqual(["the CNI installation had been changed; repaired"]);
  });

  it("the primary deleted, and back later", async () => {
    await settled();
    unlinkSync(node.conf("10-calico.conflist"));
    await until(() => expect(keeper.missing()).toContain("no CNI configuration to chain into"));
    expect(ready()).toBe(0);
    node.write("10-calico.conflist", CALICO);
    await becomes("10-calico.conflist", MERGED);
    await installed();
    expect(ready()).toBe(1);
  });

  it("all others renamed by Cilium, which becomes the primary", async () => {
    await settled();
    node.write("05-cilium.conflist", CILIUM);
    renameSync(node.conf("10-calico.conflist"), node.conf("10-calico.conflist.cilium_bak"));
    await becomes("05-cilium.conflist", CILIUM_MERGED);
    await installed();
    expect(keeper.confPath).toBe(node.conf("05-cilium.conflist"));
  });

  it("a new configuration that sorts first", async () => {
    await settled();
    node.write("00-new.conf", '{"type":"bridge","name":"new","cniVersion":"1.0.0"}');
    await until(() => expect(node.names()).toContain("00-new.conf.ambient-cni-original"));
    await installed();
    expect(keeper.confPath).toBe(node.conf("00-new.conflist"));
  });

  it("our entry edited: repaired, and never missing", async () => {
    await settled();
    const gone: unknown[] = [];
    const watcher = watch(node.netDir, () => gone.push(keeper.missing()));
    node.write("10-calico.conflist", MERGED.replace("namespace", "strict"));
    await becomes("10-calico.conflist", MERGED);
    watcher.close();
    expect(gone.length).toBeGreaterThan(0);
    expect(gone.filter((each) => each !== undefined)).toEqual([]);
    expect(ready()).toBe(1);
  });

  it("the plugin deleted, changed, made unusable", async () => {
    await settled();
    unlinkSync(node.binary);
    await until(() => expect(statSync(node.binary).mode & 0o7777).toBe(0o755));
    writeFileSync(node.binary, "another's plugin");
    await until(() => expect(statSync(node.binary).size).toBe(10));
    await until(() => expect(repairs("plugin")).toBe(2));
    await installed();
  });

  it("directories removed and made again", async () => {
    await settled();
    rmSync(node.netDir, { recursive: true });
    await until(() => expect(keeper.missing()).toContain("does not exist"));
    mkdirSync(node.netDir);
    node.write("10-calico.conflist", CALICO);
    await installed();
    rmSync(node.dir.file("bin"), { recursive: true });
    await until(() => expect(keeper.missing()).toContain("bin/istio-cni does not exist"));
    mkdirSync(node.dir.file("bin"));
    await installed();
    expect(node.read("10-calico.conflist")).toBe(MERGED);
  });

  it("upstream's kubeconfig written again", async () => {
    await settled();
    const kubeconfig = node.dir.file("run/istio-cni-kubeconfig");
    writeFileSync(kubeconfig, "token");
    node.write("unrelated.txt", "an event");
    await until(() => expect(() => statSync(kubeconfig)).toThrow("ENOENT"));
  });

  it("a copy that istio-owned keeps, when the primary changes", async () => {
    node.write("10-calico.conflist", CALICO);
    start({ istioOwnedConfig: true });
    await installed();
    node.write("10-calico.conflist", CALICO.replace("info", "debug"));
    await until(() => expect(node.read("02-istio-cni.conflist")).toContain('"debug"'));
    unlinkSync(node.conf("02-istio-cni.conflist"));
    await until(() => expect(node.names()).toContain("02-istio-cni.conflist"));
    await installed();
    expect(node.read("10-calico.conflist")).toBe(CALICO.replace("info", "debug"));
  });
});

it("events that do not concern us change nothing, and the agent stays ready", async () => {
  await settled();
  const inode = statSync(node.conf("10-calico.conflist")).ino;
  for (let i = 0; i < 20; i++) {
    node.write("20-other.conflist", fixture("15-flannel.conflist"));
    node.write("calico-kubeconfig", `token ${i}`);
    node.write("note.txt", String(i));
    unlinkSync(node.conf("20-other.conflist"));
    writeFileSync(node.dir.file("bin/other"), String(i));
    await new Promise((resolve) => setTimeout(resolve, 10));
    expect(keeper.missing()).toBeUndefined();
  }
  // One change that does concern us: when it is repaired, all before it have been looked at.
  unlinkSync(node.binary);
  await until(() => expect(repairs("plugin")).toBe(1));
  expect(statSync(node.conf("10-calico.conflist")).ino).toBe(inode);
  expect(repairs("configuration")).toBe(0);
  expect(node.installs("SUCCESS")).toBe(2);
});

describe("a fight", () => {
  /** Writes its own configuration whenever it sees another one, as Cilium does with cni.exclusive. */
  function opponent(name: string, text: string): { writes: number; stop: () => void } {
    const state = { writes: 0, stop: () => watcher.close() };
    const watcher = watch(node.netDir, () => {
      if (node.read(name) === text) return;
      state.writes++;
      node.write(`.${name}`, text);
      renameSync(node.conf(`.${name}`), node.conf(name));
    });
    return state;
  }

  it("is not fought at full speed, is told once with the way out, and is over when the other gives up", async () => {
    node.write("05-cilium.conflist", CILIUM);
    start();
    await installed();
    const began = performance.now();
    const other = opponent("05-cilium.conflist", CILIUM);
    node.write("05-cilium.conflist", CILIUM);
    await until(() => expect(keeper.missing()).toMatch(/05-cilium.conflist does not name it; .* undid it \d+ times/));
    // 0.1, 0.2, 0.4, 0.8 s between: the fifth repair is a second and a half after the first.
    expect(performance.now() - began).toBeGreaterThan(1300);
    expect(other.writes).toBeLessThanOrEqual(6);
    expect(ready()).toBe(0);
    const told = node.logger.lines.filter(({ message }) => message.includes("keeps undoing"));
    expect(told).toEqual([
      expect.objectContaining({
        level: "warn",
        fields: expect.objectContaining({
          conf: node.conf("05-cilium.conflist"),
          remedy: expect.stringContaining("cni.exclusive=false"),
          repairs: 5,
        }),
      }),
    ]);
    other.stop();
    await becomes("05-cilium.conflist", CILIUM_MERGED);
    await installed();
  });
});

describe("a fight from the beginning", () => {
  it("is no hot loop and is told, although nothing was ever seen whole", async () => {
    node.write("05-cilium.conflist", CILIUM);
    const installer = node.installer();
    const carryOut = installer.carryOut.bind(installer);
    let writes = 0;
    installer.carryOut = async (look) => {
      await carryOut(look);
      writes++;
      node.write("05-cilium.conflist", CILIUM);
    };
    const { logger, metrics, drift } = node;
    keeper = new Keeper({ installer, clock: systemClock, logger, metrics, drift });
    keeper.start();
    await until(() => expect(keeper.missing()).toMatch(/not installed yet; .* undid it 5 times/));
    expect(writes).toBeLessThan(10);
    expect(node.warnings()).toContain("another program keeps undoing the CNI installation");
  });
});

describe("the end", () => {
  it("stop: nothing is written any more, also when it never began", async () => {
    await settled();
    await keeper.stop();
    await keeper.stop();
    node.write("10-calico.conflist", CALICO);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(node.read("10-calico.conflist")).toBe(CALICO);
    keeper = node.keeper();
    await keeper.stop();
    keeper.start();
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(node.read("10-calico.conflist")).toBe(CALICO);
  });

  it("stop resolves when a write that was under way is over", async () => {
    node.write("10-calico.conflist", CALICO);
    const writing = new Promise<void>((resolve) => {
      const watcher = watch(node.netDir, (_event, name) => {
        if (!name?.includes(".tmp.")) return;
        watcher.close();
        resolve();
      });
    });
    start();
    await writing;
    await keeper.stop();
    expect(node.names()).toEqual(["10-calico.conflist"]);
    expect([CALICO, MERGED]).toContain(node.read("10-calico.conflist"));
  });

  it("remove: the node's configurations are as before, and stay so", async () => {
    await settled();
    await keeper.remove();
    expect(node.read("10-calico.conflist")).toBe(CALICO);
    node.write("note.txt", "an event");
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(node.read("10-calico.conflist")).toBe(CALICO);
    expect(statSync(node.binary).size).toBe(10);
  });
});
