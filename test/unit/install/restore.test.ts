// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, renameSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import fs from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { InstallerConfig } from "../../../install/installer.ts";
import { CniNode, fixture } from "../../support/cni-node.ts";

const FIXTURES = readdirSync(join(import.meta.dirname, "../../fixtures/conflist"));
const configurations = FIXTURES.filter((name) => /\.(conf|conflist|json)$/.test(name) && name !== "entry.json");
const originals = configurations.filter((name) => !/\.(merged|removed)\.conflist$/.test(name));
const CALICO = fixture("10-calico.conflist");
const MULTUS = fixture("00-multus.conf");

let node: CniNode;
beforeEach(() => {
  node = new CniNode();
});
afterEach(() => node[Symbol.dispose]());

/** Every file with its bytes and mode. */
const snapshot = () =>
  node.names().map((name) => [name, node.read(name), statSync(node.conf(name)).mode & 0o7777] as const);

/** What is given back: the original, but no entry of upstream's that was in it. */
function given(name: string): string {
  const removed = name.replace(".conflist", ".removed.conflist");
  return fixture(configurations.includes(removed) ? removed : name).toString("latin1");
}

describe.each<[string, Partial<InstallerConfig>]>([
  ["chained", {}],
  ["istio-owned", { istioOwnedConfig: true }],
  ["not chained", { chained: false }],
])("%s: install, then removal", (_mode, config) => {
  it.each(originals)("gives %s back as it was, and its name", async (name) => {
    node.write(name, fixture(name), 0o640);
    const before = snapshot();
    await node.installer(config).install();
    expect(snapshot()).not.toEqual(before);
    await node.installer(config).restore();
    expect(snapshot()).toEqual([[name, given(name), 0o640]]);
    // The plugin stays for the pods that still run.
    expect(readdirSync(node.dir.file("bin"))).toEqual(["istio-cni"]);
  });

  it("all of them at once", async () => {
    for (const name of originals) node.write(name, fixture(name));
    await node.installer(config).install();
    await node.installer(config).restore();
    const after = snapshot();
    expect(after.map(([name]) => name)).toEqual(originals);
    for (const [name, text] of after) expect(text).toBe(given(name));
    await node.installer(config).restore();
    expect(snapshot()).toEqual(after);
  });
});

describe("removal", () => {
  it("needs nothing of the run that installed, whatever that was set to", async () => {
    node.write("10-x.conf", MULTUS);
    const before = snapshot();
    await node.installer({ istioOwnedConfig: true, istioOwnedConfigName: "00-mesh.conflist" }).install();
    await node.installer().install();
    await node.installer({ chained: false, cniConfName: "99-alone.conf" }).install();
    await node.installer({ chained: false, cniConfName: "98-alone.conflist" }).install();
    expect(node.names()).toEqual([
      "10-x.conf.ambient-cni-original",
      "10-x.conflist",
      "98-alone.conflist",
      "99-alone.conf",
    ]);
    await node.installer().restore();
    expect(snapshot()).toEqual(before);
  });

  it("takes our entry out of every list, but leaves a list of somebody's that is ours alone", async () => {
    const alone = '{"name":"n","plugins":[{"type":"istio-cni"}]}';
    const merged = fixture("10-calico.merged.conflist");
    node.write("03-ours.conflist", alone);
    node.write("10-calico.conflist", merged);
    node.write("11-calico.conflist", merged);
    await node.installer().restore();
    expect(node.read("03-ours.conflist")).toBe(alone);
    expect(node.warnings()).toEqual([expect.stringContaining("03-ours.conflist is left")]);
    for (const name of ["10-calico.conflist", "11-calico.conflist"]) {
      expect(node.read(name)).toBe(CALICO.toString("latin1"));
    }
  });

  it("keeps what was changed in the list since it was made from a single plugin's", async () => {
    node.write("10-x.conf", MULTUS);
    await node.installer().install();
    node.write("10-x.conflist", node.read("10-x.conflist").replace("multus.kubeconfig", "edited.kubeconfig"));
    await node.installer().restore();
    expect(node.names()).toEqual(["10-x.conflist"]);
    expect(JSON.parse(node.read("10-x.conflist")).plugins).toMatchObject([
      { type: "multus", kubeconfig: expect.stringContaining("edited") },
    ]);
    expect(node.warnings()).toEqual([expect.stringContaining("stays a list")]);
  });

  it("of a list that istio-cni wrote again meanwhile gives the single plugin's back", async () => {
    node.write("10-x.conf", MULTUS);
    await node.installer().install();
    const list = JSON.parse(node.read("10-x.conflist"));
    list.plugins[1] = { type: "istio-cni", name: "istio-cni", cni_agent_run_dir: "/var/run/istio-cni" };
    node.write("10-x.conflist", `${JSON.stringify(list, undefined, 2)}\n`);
    await node.installer().restore();
    expect(node.names()).toEqual(["10-x.conf"]);
    expect(node.read("10-x.conf")).toBe(MULTUS.toString("latin1"));
  });

  it("where the CNI wrote its single plugin's again, that is the one that stays", async () => {
    const newer = '{"type":"bridge","name":"new"}';
    for (const extension of ["conf", "json"]) {
      node.write(`10-x.${extension}`, MULTUS);
      await node.installer().install();
      node.write(`10-x.${extension}`, newer);
      await node.installer().restore();
      expect(node.names()).toEqual([`10-x.${extension}`]);
      expect(node.read(`10-x.${extension}`)).toBe(newer);
      rmSync(node.conf(`10-x.${extension}`));
    }
  });

  it("without the original a list stays a list, without us", async () => {
    node.write("10-x.conf", MULTUS);
    await node.installer().install();
    rmSync(node.conf("10-x.conf.ambient-cni-original"));
    await node.installer().restore();
    expect(JSON.parse(node.read("10-x.conflist")).plugins).toMatchObject([{ type: "multus" }]);
  });

  it("does not bring back a configuration whose list somebody removed", async () => {
    node.write("10-x.conf", MULTUS);
    await node.installer().install();
    rmSync(node.conf("10-x.conflist"));
    await node.installer().restore();
    expect(node.names()).toEqual(["10-x.conf.ambient-cni-original"]);
    expect(node.warnings()).toEqual([expect.stringContaining("10-x.conf.ambient-cni-original is left")]);
  });

  it("gives back what Cilium set aside, and leaves it aside", async () => {
    node.write("10-calico.conflist", CALICO);
    await node.installer().install();
    renameSync(node.conf("10-calico.conflist"), node.conf("10-calico.conflist.cilium_bak"));
    node.write("10-x.conf", MULTUS);
    await node.installer().install();
    renameSync(node.conf("10-x.conflist"), node.conf("10-x.conflist.cilium_bak"));
    node.write("20-y.conf", MULTUS);
    await node.installer({ istioOwnedConfig: true }).install();
    renameSync(node.conf("02-istio-cni.conflist"), node.conf("02-istio-cni.conflist.cilium_bak"));
    await node.installer().restore();
    expect(node.names()).toEqual(["10-calico.conflist.cilium_bak", "10-x.conf.cilium_bak", "20-y.conf"]);
    expect(node.read("10-calico.conflist.cilium_bak")).toBe(CALICO.toString("latin1"));
    expect(node.read("10-x.conf.cilium_bak")).toBe(MULTUS.toString("latin1"));
  });

  it("is not stopped by hostile files, nor by our own leftovers, which it removes", async () => {
    execFileSync("mkfifo", [node.conf("01-fifo.conflist")]);
    execFileSync("mkfifo", [node.conf("02-fifo.conf.ambient-cni-original")]);
    mkdirSync(node.conf("03-directory.conflist"));
    node.write("04-broken.conflist", "{");
    node.write("05-large.conflist", "");
    truncateSync(node.conf("05-large.conflist"), 100 << 20);
    node.write("10-calico.conflist", fixture("10-calico.merged.conflist"));
    node.write("10-calico.conflist.tmp.0123456789ab", "torn");
    node.write("10-calico.conflist.tmp.theirs", "not ours");
    writeFileSync(node.dir.file("bin/istio-cni.tmp.0123456789ab"), "torn");
    await node.installer().restore();
    expect(node.read("10-calico.conflist")).toBe(CALICO.toString("latin1"));
    expect(node.names()).toHaveLength(7);
    expect(node.names()).toContain("10-calico.conflist.tmp.theirs");
    expect(readdirSync(node.dir.file("bin"))).toEqual([]);
  });

  it("without what can't be read gives back the rest, and says what is left", async () => {
    node.write("10-calico.conflist", CALICO);
    node.write("00-x.conf", MULTUS);
    await node.installer().install();
    const merged = fixture("10-calico.merged.conflist");
    for (const name of ["10-calico.conflist", "30-y.conflist", "40-z.conflist.cilium_bak"]) node.write(name, merged);
    const before = node.names();
    const unreadable = ["00-x.conf.ambient-cni-original", "30-y.conflist", "40-z.conflist.cilium_bak"].map(
      node.conf,
      node,
    );
    const { open } = fs;
    fs.open = async (path, ...rest) => {
      if (unreadable.includes(String(path)))
        throw Object.assign(new Error("EIO: i/o error"), { code: "EIO", errno: -5 });
      return open(path, ...rest);
    };
    syncBuiltinESMExports();
    try {
      await expect(node.installer().restore()).rejects.toMatchObject({
        code: "NODE_FILES",
        remedy: expect.any(String),
      });
    } finally {
      fs.open = open;
      syncBuiltinESMExports();
    }
    expect(node.names()).toEqual(before);
    expect(node.read("10-calico.conflist")).toBe(CALICO.toString("latin1"));
    expect(node.read("30-y.conflist")).toBe(merged.toString("latin1"));
    expect(node.read("00-x.conflist")).toContain("istio-cni");
    await node.installer().restore();
    expect(node.names()).toContain("00-x.conf");
    for (const name of ["30-y.conflist", "40-z.conflist.cilium_bak"]) {
      expect(node.read(name)).toBe(CALICO.toString("latin1"));
    }
  });

  it("is content without the directories", async () => {
    rmSync(node.netDir, { recursive: true });
    rmSync(node.dir.file("bin"), { recursive: true });
    await node.installer().restore();
    expect(node.logger.lines).toEqual([]);
  });
});
