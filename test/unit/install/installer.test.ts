// SPDX-License-Identifier: Apache-2.0
import { spawn } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { CniNode, ENTRY, fixture, PLUGIN } from "../../support/cni-node.ts";

const CALICO = fixture("10-calico.conflist");
const MERGED = fixture("10-calico.merged.conflist");
const MULTUS = fixture("00-multus.conf");
const MULTUS_MERGED = fixture("00-multus.conf.merged.conflist").toString("latin1");

let node: CniNode;
beforeEach(() => {
  node = new CniNode();
});
afterEach(() => node[Symbol.dispose]());

const inode = (path: string) => statSync(path).ino;
const modeOf = (name: string) => statSync(node.conf(name)).mode & 0o7777;
const whats = (steps: readonly { what: string; do: string }[]) => steps.map((step) => `${step.do} ${step.what}`);

describe("install", () => {
  it("chains into the first configuration and copies the plugin", async () => {
    node.write("10-calico.conflist", CALICO, 0o600);
    node.write("20-other.conflist", CALICO);
    const { steps, confPath } = await node.installer().install();
    expect(whats(steps)).toEqual(["write plugin", "write configuration"]);
    expect(confPath).toBe(node.conf("10-calico.conflist"));
    expect(node.read("10-calico.conflist")).toEqual(MERGED.toString("latin1"));
    expect(modeOf("10-calico.conflist")).toBe(0o600);
    expect(node.read("20-other.conflist")).toEqual(CALICO.toString("latin1"));
    expect(readFileSync(node.binary, "utf8")).toBe(PLUGIN);
    expect(statSync(node.binary).mode & 0o7777).toBe(0o755);
    expect(node.names()).toEqual(["10-calico.conflist", "20-other.conflist"]);
    expect(readdirSync(node.dir.file("bin"))).toEqual(["istio-cni"]);
    expect(node.installs("SUCCESS")).toBe(1);
  });

  it("touches nothing the second time", async () => {
    node.write("10-calico.conflist", CALICO);
    await node.installer().install();
    const files = [node.conf("10-calico.conflist"), node.binary];
    const before = files.map(inode);
    expect((await node.installer().install()).steps).toEqual([]);
    expect(files.map(inode)).toEqual(before);
  });

  it("replaces a plugin that differs in content or mode, whatever its time", async () => {
    node.write("10-calico.conflist", CALICO);
    await node.installer().install();
    writeFileSync(node.binary, "the plugim");
    utimesSync(node.binary, new Date("2100-01-01"), new Date("2100-01-01"));
    expect(whats((await node.installer().install()).steps)).toEqual(["write plugin"]);
    expect(readFileSync(node.binary, "utf8")).toBe(PLUGIN);
    chmodSync(node.binary, 0o644);
    expect(whats((await node.installer().install()).steps)).toEqual(["write plugin"]);
    expect(statSync(node.binary).mode & 0o7777).toBe(0o755);
  });

  it("replaces a plugin while it runs", async () => {
    node.write("10-calico.conflist", CALICO);
    copyFileSync("/bin/sleep", node.binary);
    const running = spawn(node.binary, ["60"]);
    await new Promise<void>((resolve) => running.once("spawn", () => resolve()));
    const ended = new Promise<string | null>((resolve) => running.once("exit", (_code, signal) => resolve(signal)));
    await node.installer().install();
    expect(readFileSync(node.binary, "utf8")).toBe(PLUGIN);
    expect(running.exitCode).toBeNull();
    running.kill();
    expect(await ended).toBe("SIGTERM");
  });

  it("goes through a symbolic link to the directory of plugins, and replaces one in it", async () => {
    node.write("10-calico.conflist", CALICO);
    // As k3s has it: every plugin's name is a link to one program, which must not be written over.
    mkdirSync(node.dir.file("data"));
    writeFileSync(node.dir.file("data/cni"), "all plugins in one");
    symlinkSync("cni", node.dir.file("data/istio-cni"));
    symlinkSync("data", node.dir.file("linked"));
    await node.installer({ cniBinDir: node.dir.file("linked") }).install();
    expect(readFileSync(node.dir.file("data/cni"), "utf8")).toBe("all plugins in one");
    expect(lstatSync(node.dir.file("data/istio-cni")).isFile()).toBe(true);
    expect(readFileSync(node.dir.file("linked/istio-cni"), "utf8")).toBe(PLUGIN);
    expect(lstatSync(node.dir.file("linked")).isSymbolicLink()).toBe(true);
  });

  it("follows a symbolic link to a configuration instead of replacing it", async () => {
    mkdirSync(node.dir.file("real"));
    writeFileSync(node.dir.file("real/calico"), CALICO);
    symlinkSync("../real/calico", node.conf("10-calico.conflist"));
    await node.installer().install();
    expect(lstatSync(node.conf("10-calico.conflist")).isSymbolicLink()).toBe(true);
    expect(readFileSync(node.dir.file("real/calico"))).toEqual(MERGED);
    await node.installer().restore();
    expect(readFileSync(node.dir.file("real/calico"))).toEqual(CALICO);
  });

  it("passes over broken files, and says what containerd makes of one in front", async () => {
    node.write("01-broken.conflist", "{");
    node.write("02-single.conf", '{"name":"no type"}');
    node.write("03-ours.conflist", '{"name":"n","plugins":[{"type":"istio-cni"}]}');
    node.write("04-note.txt", "not a configuration");
    node.write("10-calico.conflist", CALICO);
    node.write("20-broken.conflist", "{");
    const { confPath, warnings } = await node.installer().install();
    expect(confPath).toBe(node.conf("10-calico.conflist"));
    expect(warnings).toEqual([
      expect.stringMatching(/01-broken.*containerd uses no configuration/),
      expect.stringMatching(/02-single.*containerd uses no configuration/),
    ]);
  });

  it("does not call itself installed where runtimes may see behind a link that leads out of what is mounted", async () => {
    symlinkSync("/etc/elsewhere/05-x.conflist", node.conf("05-x.conflist"));
    node.write("10-calico.conflist", CALICO);
    await node.installer().install();
    expect(node.read("10-calico.conflist")).toBe(MERGED.toString("latin1"));
    expect((await node.installer().look()).missing).toMatch(/05-x.conflist is a link to \/etc\/elsewhere/);
    expect((await node.installer({ cniConfName: "10-calico.conflist" }).look()).missing).toBeUndefined();
    renameSync(node.conf("05-x.conflist"), node.conf("20-x.conflist"));
    expect((await node.installer().look()).missing).toBeUndefined();
  });

  it("leaves every other configuration directory alone", async () => {
    mkdirSync(node.dir.file("multus.d"));
    writeFileSync(node.dir.file("multus.d/10-calico.conflist"), CALICO);
    node.write("10-calico.conflist", CALICO);
    await node.installer().install();
    expect(readFileSync(node.dir.file("multus.d/10-calico.conflist"))).toEqual(CALICO);
  });

  it("removes upstream's kubeconfig, but only when the plugin that needs none is in place", async () => {
    const kubeconfig = node.dir.file("run/istio-cni-kubeconfig");
    writeFileSync(kubeconfig, "token", { mode: 0o600 });
    await expect(node.installer().install()).rejects.toMatchObject({ code: "CNI_CONF_NOT_FOUND" });
    expect(existsSync(kubeconfig)).toBe(true);
    node.write("10-calico.conflist", CALICO);
    rmSync(node.dir.file("source/istio-cni"));
    await expect(node.installer().install()).rejects.toMatchObject({ code: "PLUGIN_SOURCE" });
    expect(existsSync(kubeconfig)).toBe(true);
    writeFileSync(node.dir.file("source/istio-cni"), PLUGIN);
    const { steps } = await node.installer().install();
    expect(whats(steps)).toEqual(["write plugin", "remove kubeconfig", "write configuration"]);
    expect(existsSync(kubeconfig)).toBe(false);
  });

  it("a kubeconfig that is a directory, or that can't be removed, stops nothing", async () => {
    mkdirSync(node.dir.file("run/istio-cni-kubeconfig"));
    node.write("10-calico.conflist", CALICO);
    await node.installer().install();
    expect(node.read("10-calico.conflist")).toBe(MERGED.toString("latin1"));
  });
});

describe("a pinned configuration", () => {
  it("is taken even if another comes first, with a warning", async () => {
    node.write("01-first.conflist", CALICO);
    node.write("10-calico.conflist", CALICO);
    const { confPath, missing, warnings } = await node.installer({ cniConfName: "10-calico.conflist" }).install();
    expect(confPath).toBe(node.conf("10-calico.conflist"));
    expect(warnings).toEqual([expect.stringContaining("01-first.conflist sorts before")]);
    expect(node.read("01-first.conflist")).toBe(CALICO.toString("latin1"));
    expect(missing).toContain("10-calico.conflist does not name it");
    expect((await node.installer({ cniConfName: "10-calico.conflist" }).look()).missing).toBeUndefined();
  });

  it.each([
    ["10-calico.conf", "10-calico.conflist"],
    ["10-calico.json", "10-calico.conflist"],
  ])("%s is found as %s", async (cniConfName, name) => {
    node.write(name, CALICO);
    await node.installer({ cniConfName }).install();
    expect(node.read(name)).toBe(MERGED.toString("latin1"));
  });

  it("10-x.conflist is found as 10-x.conf, and stays found when that has become a list", async () => {
    node.write("10-x.conf", MULTUS);
    for (let run = 0; run < 2; run++) await node.installer({ cniConfName: "10-x.conflist" }).install();
    expect(node.names()).toEqual(["10-x.conf.ambient-cni-original", "10-x.conflist"]);
    expect((await node.installer({ cniConfName: "10-x.conf" }).look()).steps).toEqual([]);
  });
});

describe("a configuration of one plugin", () => {
  it.each([
    ["00-multus.conf", "00-multus.conflist"],
    ["10-ovn-kubernetes.conf", "10-ovn-kubernetes.conflist"],
    ["30-crlf.conf", "30-crlf.conflist"],
    ["87-bridge.json", "87-bridge.conflist"],
  ])("%s becomes %s, and its original is kept where no runtime looks", async (name, list) => {
    node.write(name, fixture(name), 0o640);
    const before = inode(node.conf(name));
    const { confPath } = await node.installer().install();
    expect(confPath).toBe(node.conf(list));
    expect(node.names()).toEqual([`${name}.ambient-cni-original`, list].sort());
    const merged = fixture(`${name}.merged.conflist`).toString("latin1");
    expect(node.read(list)).toBe(merged);
    expect([modeOf(list), inode(node.conf(`${name}.ambient-cni-original`))]).toEqual([0o640, before]);
    expect((await node.installer().install()).steps).toEqual([]);
  });

  it.each(["00-multus.conf", "00-multus.json"])("%s that its CNI writes again becomes the list again", async (name) => {
    node.write(name, '{"type":"bridge","name":"old"}');
    await node.installer().install();
    node.write(name, MULTUS);
    // A .json sorts after its list: runtimes go on with that, and with us.
    const { missing } = await node.installer().look();
    expect(missing).toEqual(name.endsWith(".conf") ? expect.stringContaining(`${name} does not name it`) : undefined);
    await node.installer().install();
    expect(node.read("00-multus.conflist")).toBe(MULTUS_MERGED.replace("00-multus.conf", name));
    expect(readFileSync(node.conf(`${name}.ambient-cni-original`))).toEqual(MULTUS);
    expect(node.names()).toHaveLength(2);
  });

  it("never becomes a list over somebody else's", async () => {
    node.write("10-x.conf", MULTUS);
    node.write("10-x.conflist", CALICO);
    const { confPath } = await node.installer().install();
    expect(confPath).toBe(node.conf("10-x.conf.conflist"));
    expect(readFileSync(node.conf("10-x.conflist"))).toEqual(CALICO);
    expect(node.read("10-x.conf.conflist")).toBe(MULTUS_MERGED.replace("00-multus.conf", "10-x.conf"));
    expect((await node.installer().look()).missing).toBeUndefined();
    await node.installer().restore();
    expect(node.names()).toEqual(["10-x.conf", "10-x.conflist"]);
  });

  it("takes over the list that istio-cni made of it before", async () => {
    node.write("10-x.conf", '{"type":"bridge","name":"mynet"}');
    node.write("10-x.conflist", fixture("60-upstream-converted.conflist"));
    const { confPath } = await node.installer().install();
    expect(confPath).toBe(node.conf("10-x.conflist"));
    expect(JSON.parse(node.read("10-x.conflist"))).toMatchObject({
      name: "mynet",
      plugins: [{ type: "bridge" }, ENTRY],
    });
  });

  it("behind a symbolic link is left there", async () => {
    mkdirSync(node.dir.file("real"));
    writeFileSync(node.dir.file("real/x"), MULTUS);
    symlinkSync("../real/x", node.conf("10-x.conf"));
    await node.installer().install();
    expect(readFileSync(node.dir.file("real/x"))).toEqual(MULTUS);
    expect(node.read("10-x.conflist")).toBe(MULTUS_MERGED.replace("00-multus.conf", "10-x.conf"));
    await node.installer().restore();
    expect(lstatSync(node.conf("10-x.conf")).isSymbolicLink()).toBe(true);
    expect(node.names()).toEqual(["10-x.conf"]);
  });
});

describe("istio-owned", () => {
  const OWNED = { istioOwnedConfig: true };
  const owned = (name = "02-istio-cni.conflist") => JSON.parse(node.read(name));

  it("writes a copy that sorts first and leaves the primary as it is", async () => {
    node.write("10-calico.conflist", CALICO);
    const { confPath } = await node.installer(OWNED).install();
    expect(confPath).toBe(node.conf("02-istio-cni.conflist"));
    expect(node.read("10-calico.conflist")).toBe(CALICO.toString("latin1"));
    const calico = JSON.parse(CALICO.toString());
    expect(owned()).toEqual({
      ...calico,
      plugins: [...calico.plugins, { ...ENTRY, istio_owned_cni_config: true }],
    });
    expect(modeOf("02-istio-cni.conflist")).toBe(0o600);
    expect((await node.installer(OWNED).look()).steps).toEqual([]);
  });

  it("follows the primary's content, also of one plugin, and another primary", async () => {
    node.write("10-x.conf", MULTUS);
    await node.installer(OWNED).install();
    expect(owned().plugins.map(({ type }: { type: string }) => type)).toEqual(["multus", "istio-cni"]);
    node.write("10-x.conf", MULTUS.toString().replace("multus.kubeconfig", "other.kubeconfig"));
    await node.installer(OWNED).install();
    expect(owned().plugins[0].kubeconfig).toContain("other.kubeconfig");
    node.write("05-cilium.conflist", fixture("05-cilium.conflist"));
    await node.installer(OWNED).install();
    expect(owned().name).toBe("cilium");
    expect(node.names()).toEqual(["02-istio-cni.conflist", "05-cilium.conflist", "10-x.conf"]);
  });

  it("stays while the primary is away, and is kept right from itself", async () => {
    node.write("10-calico.conflist", CALICO);
    await node.installer(OWNED).install();
    rmSync(node.conf("10-calico.conflist"));
    expect(await node.installer(OWNED).look()).toMatchObject({ steps: [], missing: undefined, problem: undefined });
    node.write("02-istio-cni.conflist", node.read("02-istio-cni.conflist").replace("namespace", "strict"));
    await node.installer(OWNED).install();
    expect(owned().plugins[2].agent_away).toBe("namespace");
  });

  it.each([
    [false, 0o600],
    [true, 0o640],
  ])("cniConfGroupRead %s: mode %o, and an existing one stays", async (cniConfGroupRead, mode) => {
    node.write("10-calico.conflist", CALICO, 0o604);
    await node.installer({ ...OWNED, cniConfGroupRead }).install();
    expect(modeOf("02-istio-cni.conflist")).toBe(mode);
    chmodSync(node.conf("02-istio-cni.conflist"), 0o644);
    node.write("10-calico.conflist", fixture("05-cilium.conflist"));
    await node.installer({ ...OWNED, cniConfGroupRead }).install();
    expect(owned().name).toBe("cilium");
    expect([modeOf("02-istio-cni.conflist"), modeOf("10-calico.conflist")]).toEqual([0o644, 0o604]);
  });

  it("is missing, and says so, where another file sorts before it", async () => {
    node.write("01-first.conflist", CALICO);
    const { warnings } = await node.installer(OWNED).install();
    expect(warnings).toEqual([expect.stringContaining("01-first.conflist sorts before 02-istio-cni.conflist")]);
    expect((await node.installer(OWNED).look()).missing).toContain("01-first.conflist does not name it");
  });

  it.each(["", "{", '{"name":"n"}'])("a broken file of its name (%j) is replaced", async (content) => {
    node.write("10-calico.conflist", CALICO);
    node.write("02-istio-cni.conflist", content);
    await node.installer(OWNED).install();
    expect(owned().plugins).toHaveLength(3);
  });

  it("moves when its name changes, and goes when it is turned off", async () => {
    node.write("10-calico.conflist", CALICO);
    await node.installer({ ...OWNED, istioOwnedConfigName: "00-mesh.conflist" }).install();
    await node.installer(OWNED).install();
    expect(node.names()).toEqual(["02-istio-cni.conflist", "10-calico.conflist"]);
    await node.installer({ ...OWNED, istioOwnedConfigName: "00-mesh.conflist" }).install();
    expect(node.names()).toEqual(["00-mesh.conflist", "10-calico.conflist"]);
    const look = await node.installer().look();
    expect(whats(look.steps)).toEqual(["write configuration", "remove configuration"]);
    await node.installer().install();
    expect(node.names()).toEqual(["10-calico.conflist"]);
    expect(node.read("10-calico.conflist")).toBe(MERGED.toString("latin1"));
  });

  it("takes the primary that is pinned, and upstream's copy for what it is", async () => {
    node.write("05-cilium.conflist", fixture("05-cilium.conflist"));
    node.write("10-calico.conflist", CALICO);
    node.write("02-istio-cni.conflist", fixture("50-upstream.conflist"));
    await node.installer({ ...OWNED, cniConfName: "10-calico.conflist" }).install();
    expect(owned().plugins.map(({ type }: { type: string }) => type)).toEqual(["calico", "portmap", "istio-cni"]);
    // Upstream's own, in a mode that copies nothing: the primary is chained, then the copy goes.
    const upstream = JSON.parse(node.read("02-istio-cni.conflist"));
    upstream.plugins[2] = { type: "istio-cni", name: "istio-cni" };
    node.write("02-istio-cni.conflist", JSON.stringify(upstream));
    await node.installer({ cniConfName: "10-calico.conflist" }).install();
    expect(node.names()).toEqual(["05-cilium.conflist", "10-calico.conflist"]);
  });

  it("a configuration of its name that is no copy of another is somebody's, and stays", async () => {
    node.write("02-istio-cni.conflist", CALICO);
    node.write("05-cilium.conflist", fixture("05-cilium.conflist"));
    await node.installer().install();
    expect(node.read("02-istio-cni.conflist")).toBe(MERGED.toString("latin1"));
    expect((await node.installer().look()).steps).toEqual([]);
    await node.installer().restore();
    expect(node.read("02-istio-cni.conflist")).toBe(CALICO.toString("latin1"));
  });
});

describe("not chained", () => {
  const ALONE = { chained: false };
  const text = `${JSON.stringify({ cniVersion: "0.3.1", name: "istio-cni", ...ENTRY }, undefined, 2)}\n`;

  it("writes a configuration of the plugin alone, as Multus looks it up by name", async () => {
    node.write("10-calico.conflist", CALICO);
    expect((await node.installer(ALONE).look()).missing).toContain("no CNI configuration");
    await node.installer(ALONE).install();
    expect(node.names()).toEqual(["10-calico.conflist", "YYY-istio-cni.conf"]);
    expect(node.read("YYY-istio-cni.conf")).toBe(text);
    expect(node.read("10-calico.conflist")).toBe(CALICO.toString("latin1"));
    expect(modeOf("YYY-istio-cni.conf")).toBe(0o600);
    expect(await node.installer(ALONE).look()).toMatchObject({ steps: [], missing: undefined });
  });

  it("under the name that is set, over broken or older content", async () => {
    const config = { ...ALONE, cniConfName: "istio-cni.conf", cniConfGroupRead: true };
    for (const before of ["", "{", '{"type":"istio-cni","name":"istio-cni","kubernetes":{}}']) {
      node.write("istio-cni.conf", before, 0o640);
      await node.installer(config).install();
      expect(node.read("istio-cni.conf")).toBe(text);
    }
    rmSync(node.conf("istio-cni.conf"));
    await node.installer(config).install();
    expect(modeOf("istio-cni.conf")).toBe(0o640);
  });

  it("as a list where the name says so", async () => {
    await node.installer({ ...ALONE, cniConfName: "istio-cni.conflist" }).install();
    expect(JSON.parse(node.read("istio-cni.conflist"))).toEqual({
      cniVersion: "0.3.1",
      name: "istio-cni",
      plugins: [ENTRY],
    });
  });

  it("never over another plugin's configuration", async () => {
    node.write("10-calico.conflist", CALICO);
    await expect(node.installer({ ...ALONE, cniConfName: "10-calico.conflist" }).install()).rejects.toMatchObject({
      code: "CNI_CONF_UNSUPPORTED",
      remedy: expect.stringContaining("CHAINED_CNI_PLUGIN"),
    });
    expect(node.read("10-calico.conflist")).toBe(CALICO.toString("latin1"));
  });

  it("does not make the directory of a mount that is missing", async () => {
    rmSync(node.netDir, { recursive: true });
    await expect(node.installer(ALONE).install()).rejects.toMatchObject({ code: "CNI_CONF_NOT_FOUND" });
    expect(existsSync(node.netDir)).toBe(false);
  });
});

describe("install refuses, names the file and leaves everything as it was", () => {
  it.each<[string, string, string | Buffer, string, string]>([
    ["broken JSON", "10-a.conflist", "{", "CNI_CONF_NOT_FOUND", ""],
    ["a list of nothing", "10-a.conflist", '{"name":"n","plugins":[]}', "CNI_CONF_NOT_FOUND", ""],
    ["UTF-16", "10-a.conflist", Buffer.from([0xff, 0xfe]), "CNI_CONF_NOT_FOUND", ""],
    ["3 MiB", "10-a.conflist", Buffer.alloc(3 << 20, " "), "CNI_CONF_NOT_FOUND", ""],
    ["an old version", "10-a.conflist", '{"name":"n","plugins":[{"type":"a"}]}', "CNI_CONF_UNSUPPORTED", ""],
    ["a pinned broken file", "10-a.conflist", "{", "CNI_CONF_INVALID", "10-a.conflist"],
    ["a pinned list in a .conf", "10-a.conf", CALICO, "CNI_CONF_INVALID", "10-a.conf"],
  ])("%s", async (_what, name, content, code, cniConfName) => {
    node.write(name, content);
    await expect(node.installer({ cniConfName }).install()).rejects.toMatchObject({
      code,
      message: expect.stringContaining(node.conf(name)),
      remedy: expect.stringMatching(/\w/),
    });
    expect(readFileSync(node.conf(name)).equals(Buffer.from(content))).toBe(true);
    expect(readdirSync(node.dir.file("bin"))).toEqual([]);
  });

  it("a pinned file that is missing", async () => {
    node.write("10-calico.conflist", CALICO);
    await expect(node.installer({ cniConfName: "99.conflist" }).install()).rejects.toMatchObject({
      code: "CNI_CONF_NOT_FOUND",
      message: expect.stringContaining("99.conflist"),
    });
  });

  it("an image without the plugin", async () => {
    node.write("10-calico.conflist", CALICO);
    rmSync(node.dir.file("source/istio-cni"));
    await expect(node.installer().install()).rejects.toMatchObject({
      code: "PLUGIN_SOURCE",
      message: expect.stringContaining(node.dir.file("source/istio-cni")),
    });
    expect(node.read("10-calico.conflist")).toBe(CALICO.toString("latin1"));
  });

  it.each<[string, (path: string) => void]>([
    ["a file", (path) => writeFileSync(path, "")],
    ["missing", () => undefined],
    ["a link to nowhere", (path) => symlinkSync("/nowhere/at/all", path)],
    ["a link to itself", (path) => symlinkSync(path, path)],
    ["full of a directory of that name", (path) => mkdirSync(join(path, "istio-cni/x"), { recursive: true })],
  ])("a directory of plugins that is %s", async (_what, make) => {
    node.write("10-calico.conflist", CALICO);
    const cniBinDir = node.dir.file("wrong");
    make(cniBinDir);
    await expect(node.installer({ cniBinDir }).install()).rejects.toMatchObject({
      code: "BAD_PATH",
      message: expect.stringContaining(join(cniBinDir, "istio-cni")),
      remedy: expect.stringContaining("cniBinDir"),
    });
    expect(node.read("10-calico.conflist")).toBe(CALICO.toString("latin1"));
    expect(node.installs("SUCCESS")).toBe(0);
  });

  it("a plugin that is missing from a chain which names it is put there all the same", async () => {
    node.write("10-calico.conflist", MERGED.toString().replace("0.3.1", "9.0.0"));
    const installer = node.installer();
    expect((await installer.look()).missing).toContain("bin/istio-cni does not exist");
    await expect(installer.install()).rejects.toMatchObject({ code: "CNI_CONF_UNSUPPORTED" });
    expect(readFileSync(node.binary, "utf8")).toBe(PLUGIN);
  });
});

describe("what another program changes between look and step", () => {
  it("a configuration: nothing is written over it", async () => {
    node.write("10-calico.conflist", CALICO);
    const installer = node.installer();
    const look = await installer.look();
    node.write("10-calico.conflist", fixture("05-cilium.conflist"));
    await expect(installer.carryOut(look)).rejects.toMatchObject({ code: "FILE_CHANGED" });
    expect(node.read("10-calico.conflist")).toBe(fixture("05-cilium.conflist").toString("latin1"));
    expect(node.names()).toEqual(["10-calico.conflist"]);
    expect(node.installs("CREATE_CNI_CONFIG_FAILURE")).toBe(1);
  });

  it("a single plugin's: neither set aside nor shadowed", async () => {
    node.write("10-x.conf", MULTUS);
    const installer = node.installer();
    const look = await installer.look();
    const [plugin, write, rename] = look.steps;
    expect([plugin?.do, write?.do, rename?.do]).toEqual(["write", "write", "rename"]);
    node.write("10-x.conf", '{"type":"bridge","name":"new"}');
    await expect(installer.carryOut(look)).rejects.toMatchObject({ code: "FILE_CHANGED" });
    expect(node.read("10-x.conf")).toContain("bridge");
    await installer.install();
    expect(JSON.parse(node.read("10-x.conflist")).plugins[0].type).toBe("bridge");
  });

  it("a file that appears where we were about to create ours", async () => {
    node.write("10-calico.conflist", CALICO);
    const installer = node.installer({ istioOwnedConfig: true });
    const look = await installer.look();
    node.write("02-istio-cni.conflist", CALICO);
    await expect(installer.carryOut(look)).rejects.toMatchObject({ code: "FILE_CHANGED" });
    renameSync(node.conf("02-istio-cni.conflist"), node.conf("20-calico.conflist"));
    await installer.carryOut(await installer.look());
    expect(node.names()).toContain("02-istio-cni.conflist");
  });
});
