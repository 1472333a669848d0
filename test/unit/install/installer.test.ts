// SPDX-License-Identifier: Apache-2.0
import { spawn } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Installer } from "../../../install/installer.ts";
import { LogRecorder, MetricRecorder } from "../../support/recorder.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

const FIXTURES = join(import.meta.dirname, "../../fixtures/conflist");
const ENTRY = JSON.parse(readFileSync(join(FIXTURES, "entry.json"), "utf8"));
const CALICO = readFileSync(join(FIXTURES, "10-calico.conflist"));
const MERGED = readFileSync(join(FIXTURES, "10-calico.merged.conflist"));

let dir: ScratchDir;
let logger: LogRecorder;
let metrics: MetricRecorder;

beforeEach(() => {
  dir = new ScratchDir();
  logger = new LogRecorder();
  metrics = new MetricRecorder();
  for (const name of ["net.d", "bin", "source"]) mkdirSync(dir.file(name));
  writeFileSync(dir.file("source/istio-cni"), "the plugin");
});
afterEach(() => dir[Symbol.dispose]());

const installer = (cniConfName = "", cniBinDir = dir.file("bin")) =>
  new Installer(
    { cniConfName, cniBinDir, cniNetDir: dir.file("net.d"), pluginSourceDir: dir.file("source") },
    ENTRY,
    logger,
    metrics,
  );
const conf = (name: string) => dir.file(`net.d/${name}`);
const installs = (result: string) => metrics.counts.get(`istio_cni_installs_total${JSON.stringify({ result })}`);

describe("install", () => {
  it("chains into the first configuration and copies the plugin", async () => {
    writeFileSync(conf("10-calico.conflist"), CALICO, { mode: 0o600 });
    writeFileSync(conf("20-other.conflist"), CALICO);
    expect(await installer().install()).toEqual({
      confPath: conf("10-calico.conflist"),
      confChanged: true,
      binaryChanged: true,
    });
    expect(readFileSync(conf("10-calico.conflist"))).toEqual(MERGED);
    expect(statSync(conf("10-calico.conflist")).mode & 0o7777).toBe(0o600);
    expect(readFileSync(conf("20-other.conflist"))).toEqual(CALICO);
    expect(readFileSync(dir.file("bin/istio-cni"), "utf8")).toBe("the plugin");
    expect(statSync(dir.file("bin/istio-cni")).mode & 0o7777).toBe(0o755);
    expect(readdirSync(dir.file("net.d"))).toEqual(["10-calico.conflist", "20-other.conflist"]);
    expect(readdirSync(dir.file("bin"))).toEqual(["istio-cni"]);
    expect(installs("SUCCESS")).toBe(1);
  });

  it("touches nothing the second time", async () => {
    writeFileSync(conf("10-calico.conflist"), CALICO);
    await installer().install();
    const files = [conf("10-calico.conflist"), dir.file("bin/istio-cni")];
    const before = files.map((path) => statSync(path).ino);
    expect(await installer().install()).toMatchObject({ confChanged: false, binaryChanged: false });
    expect(files.map((path) => statSync(path).ino)).toEqual(before);
  });

  it("replaces a plugin that differs in content or mode, whatever its time", async () => {
    writeFileSync(conf("10-calico.conflist"), CALICO);
    await installer().install();
    const target = dir.file("bin/istio-cni");
    writeFileSync(target, "the plugim");
    utimesSync(target, new Date("2100-01-01"), new Date("2100-01-01"));
    expect(await installer().install()).toMatchObject({ binaryChanged: true });
    expect(readFileSync(target, "utf8")).toBe("the plugin");
    chmodSync(target, 0o644);
    expect(await installer().install()).toMatchObject({ binaryChanged: true });
    expect(statSync(target).mode & 0o7777).toBe(0o755);
  });

  it("replaces a plugin while it runs", async () => {
    writeFileSync(conf("10-calico.conflist"), CALICO);
    copyFileSync("/bin/sleep", dir.file("bin/istio-cni"));
    const running = spawn(dir.file("bin/istio-cni"), ["60"]);
    await new Promise<void>((resolve) => running.once("spawn", () => resolve()));
    const ended = new Promise<string | null>((resolve) => running.once("exit", (_code, signal) => resolve(signal)));
    expect(await installer().install()).toMatchObject({ binaryChanged: true });
    expect(readFileSync(dir.file("bin/istio-cni"), "utf8")).toBe("the plugin");
    expect(running.exitCode).toBeNull();
    running.kill();
    expect(await ended).toBe("SIGTERM");
  });

  it("follows a symbolic link instead of replacing it", async () => {
    mkdirSync(dir.file("real"));
    writeFileSync(dir.file("real/calico"), CALICO);
    symlinkSync("../real/calico", conf("10-calico.conflist"));
    await installer().install();
    expect(lstatSync(conf("10-calico.conflist")).isSymbolicLink()).toBe(true);
    expect(readFileSync(dir.file("real/calico"))).toEqual(MERGED);
    await installer().restore();
    expect(readFileSync(dir.file("real/calico"))).toEqual(CALICO);
  });

  it("passes over files that runtimes would pass over, and says so", async () => {
    writeFileSync(conf("01-broken.conflist"), "{");
    writeFileSync(conf("02-single.conf"), '{"name":"no type"}');
    writeFileSync(conf("03-ours.conflist"), '{"plugins":[{"type":"istio-cni"}]}');
    writeFileSync(conf("04-note.txt"), "not a configuration");
    writeFileSync(conf("10-calico.conflist"), CALICO);
    expect(await installer().install()).toMatchObject({ confPath: conf("10-calico.conflist") });
    expect(logger.lines.filter(({ level }) => level === "warn").map(({ fields }) => fields.path)).toEqual([
      conf("01-broken.conflist"),
      conf("02-single.conf"),
    ]);
  });

  it("takes the pinned configuration even if another comes first", async () => {
    writeFileSync(conf("01-first.conflist"), CALICO);
    writeFileSync(conf("10-calico.conflist"), CALICO);
    expect(await installer("10-calico.conflist").install()).toMatchObject({ confPath: conf("10-calico.conflist") });
    expect(readFileSync(conf("01-first.conflist"))).toEqual(CALICO);
  });
});

describe("install refuses, names the file and leaves everything as it was", () => {
  it.each<[string, string, string | Buffer, string, string]>([
    ["broken JSON", "10-a.conflist", "{", "CNI_CONF_NOT_FOUND", ""],
    ["a list of nothing", "10-a.conflist", '{"plugins":[]}', "CNI_CONF_NOT_FOUND", ""],
    ["invalid UTF-8", "10-a.conflist", Buffer.from([0xff, 0xfe]), "CNI_CONF_NOT_FOUND", ""],
    ["2 MiB", "10-a.conflist", Buffer.alloc(2 << 20, " "), "CNI_CONF_NOT_FOUND", ""],
    ["a single plugin", "10-a.conf", '{"type":"bridge"}', "CNI_CONF_UNSUPPORTED", ""],
    ["a pinned broken file", "10-a.conflist", "{", "CNI_CONF_INVALID", "10-a.conflist"],
    ["a pinned single plugin", "10-a.conf", '{"type":"bridge"}', "CNI_CONF_UNSUPPORTED", "10-a.conf"],
  ])("%s", async (_what, name, content, code, pinned) => {
    writeFileSync(conf(name), content);
    await expect(installer(pinned).install()).rejects.toMatchObject({
      code,
      message: expect.stringContaining(conf(name)),
      remedy: expect.stringMatching(/\w/),
    });
    expect(readFileSync(conf(name)).equals(Buffer.from(content))).toBe(true);
    expect(readdirSync(dir.file("bin"))).toEqual([]);
    expect(installs("CREATE_CNI_CONFIG_FAILURE")).toBe(1);
  });

  it("no configuration directory", async () => {
    rmSync(dir.file("net.d"), { recursive: true });
    await expect(installer().install()).rejects.toMatchObject({
      code: "CNI_CONF_NOT_FOUND",
      message: expect.stringContaining(dir.file("net.d")),
    });
  });

  it("a pinned file that is missing", async () => {
    writeFileSync(conf("10-calico.conflist"), CALICO);
    await expect(installer("99.conflist").install()).rejects.toMatchObject({
      code: "CNI_CONF_NOT_FOUND",
      message: expect.stringContaining("99.conflist"),
    });
  });

  it("an image without the plugin: the chain stays as it was", async () => {
    writeFileSync(conf("10-calico.conflist"), CALICO);
    rmSync(dir.file("source/istio-cni"));
    await expect(installer().install()).rejects.toMatchObject({
      code: "PLUGIN_SOURCE",
      message: expect.stringContaining(dir.file("source/istio-cni")),
    });
    expect(readFileSync(conf("10-calico.conflist"))).toEqual(CALICO);
    expect(installs("COPY_BINARIES_FAILURE")).toBe(1);
  });

  it("a binary directory that is a file: the chain stays as it was", async () => {
    writeFileSync(conf("10-calico.conflist"), CALICO);
    writeFileSync(dir.file("file"), "");
    await expect(installer("", dir.file("file")).install()).rejects.toMatchObject({ code: "ENOTDIR" });
    expect(readFileSync(conf("10-calico.conflist"))).toEqual(CALICO);
    expect(installs("COPY_BINARIES_FAILURE")).toBe(1);
  });
});

describe("restore", () => {
  it.each(readdirSync(FIXTURES).filter((name) => /^[0-4].*[^d]\.conflist$/.test(name)))(
    "gives %s back byte for byte",
    async (name) => {
      const before = readFileSync(join(FIXTURES, name));
      writeFileSync(conf(name), before, { mode: 0o640 });
      await installer().install();
      await installer().restore();
      expect(readFileSync(conf(name))).toEqual(before);
      expect(statSync(conf(name)).mode & 0o7777).toBe(0o640);
      expect(readdirSync(dir.file("bin"))).toEqual(["istio-cni"]);
    },
  );

  it("is harmless when nothing is installed, and beside broken files", async () => {
    writeFileSync(conf("01-broken.conflist"), "{");
    writeFileSync(conf("02-large.conflist"), Buffer.alloc(2 << 20, " "));
    writeFileSync(conf("10-calico.conflist"), CALICO);
    await installer().restore();
    await installer().restore();
    expect(readFileSync(conf("01-broken.conflist"), "utf8")).toBe("{");
    expect(readFileSync(conf("10-calico.conflist"))).toEqual(CALICO);
  });

  it("takes our entry out of every list, but leaves a list that is ours alone", async () => {
    const alone = '{"plugins":[{"type":"istio-cni"}]}';
    writeFileSync(conf("03-ours.conflist"), alone);
    writeFileSync(conf("10-calico.conflist"), MERGED);
    writeFileSync(conf("11-calico.conflist"), MERGED);
    await installer().restore();
    expect(readFileSync(conf("03-ours.conflist"), "utf8")).toBe(alone);
    expect(readFileSync(conf("10-calico.conflist"))).toEqual(CALICO);
    expect(readFileSync(conf("11-calico.conflist"))).toEqual(CALICO);
  });
});
