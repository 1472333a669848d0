// SPDX-License-Identifier: Apache-2.0
// The image as it comes out of the builder, run as a container's runtime would: read-only, without a shell.
import { existsSync, readdirSync, readFileSync, realpathSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BuiltImage } from "../support/built-image.ts";

const GOLDEN = resolve(import.meta.dirname, "../unit/dataplane/golden");
const LOADER = { x64: "/lib64/ld-linux-x86-64.so.2", arm64: "/lib/ld-linux-aarch64.so.1" }[
  process.arch as "x64" | "arm64"
];

let image: BuiltImage;

beforeAll(() => {
  image = new BuiltImage();
});
afterAll(() => image[Symbol.dispose]());

const contentOf = (path: string) => readFileSync(join(image.root, path), "utf8");

/** Texts that the agent gives to nft and iptables. */
const golden = (ending: string) =>
  readdirSync(GOLDEN)
    .filter((name) => name.endsWith(ending))
    .map((name) => readFileSync(join(GOLDEN, name), "utf8"));

describe("contents", () => {
  test("all is root's, nothing runs with another's rights, others write to /tmp alone", () => {
    expect(image.files.length).toBeGreaterThan(200);
    expect(image.files.filter(({ owner }) => owner !== "0/0")).toEqual([]);
    expect(image.files.filter(({ mode }) => /[sS]/.test(mode.slice(1)))).toEqual([]);
    const writable = image.files.filter(({ mode }) => !mode.startsWith("l") && (mode[5] === "w" || mode[8] === "w"));
    expect(writable.map(({ path, mode }) => `${mode} ${path}`)).toEqual(["drwxrwxrwt tmp"]);
    expect(image.files.filter(({ mode }) => !/^[-dl]/.test(mode))).toEqual([]);
  });

  test("its programs are those that are needed: no shell, no package manager, no interpreter but Node", () => {
    const folders = ["bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "opt/cni/bin"];
    const programs = folders.flatMap((folder) => readdirSync(join(image.root, folder)));
    const iptables = ["ip", "ip6"].flatMap((ip) =>
      ["", "-nft", "-legacy"].flatMap((variant) =>
        ["", "-restore", "-save"].map((verb) => `${ip}tables${variant}${verb}`),
      ),
    );
    const own = ["ambient-cni", "install-cni", "istio-cni", "nft", "node", "xtables-legacy-multi", "xtables-nft-multi"];
    expect([...new Set(programs)].sort()).toEqual([...own, ...iptables].sort());
    // What may be run elsewhere: libc and the loader say their version, and Node's licence is none.
    const runnable = image.files.filter(
      ({ path, mode }) => mode.startsWith("-rwx") && !folders.some((f) => path.startsWith(`${f}/`)),
    );
    expect(runnable.map(({ path }) => path.replace(/^.*\//, "")).sort()).toEqual(["ld-linux-x86-64.so.2", "libc.so.6"]);
  });

  test("no link leads nowhere", () => {
    const broken = image.files.filter(({ path, target }) => {
      if (target === undefined) return false;
      return !existsSync(target.startsWith("/") ? join(image.root, target) : join(image.root, path, "..", target));
    });
    expect(broken.map(({ path, target }) => `${path} -> ${target}`)).toEqual([]);
  });

  test("every program and library finds its libraries in the image", () => {
    const elf = image.files.filter(
      ({ path, mode }) =>
        mode.startsWith("-") && readFileSync(join(image.root, path)).subarray(0, 4).toString("latin1") === "\x7fELF",
    );
    expect(elf.length).toBeGreaterThan(100);
    const dynamic = elf.map(({ path }) => `/${path}`).filter((path) => !/\/(ld-linux|istio-cni)/.test(path));
    // One start for all: the loader takes one file, so Node asks it for each.
    const script = `
      const { execFileSync } = require("node:child_process");
      const missing = [];
      for (const path of JSON.parse(require("node:fs").readFileSync(0, "utf8"))) {
        const list = execFileSync("${LOADER}", ["--list", path], { encoding: "utf8" });
        if (list.includes("not found")) missing.push(path + ": " + list);
      }
      process.stdout.write(JSON.stringify(missing));`;
    const { stdout, stderr } = image.run(["node", "-e", script], { input: JSON.stringify(dynamic) });
    expect(stderr).toBe("");
    expect(JSON.parse(stdout)).toEqual([]);
  });

  test("a node pulls 50 MB at most, of which a new version of ours is 2 MB", () => {
    const [rootfs, node, app] = image.layerSizes;
    expect(rootfs).toBeLessThan(6e6);
    expect(node).toBeLessThan(43e6);
    expect(app).toBeLessThan(2e6);
    expect(image.layerSizes).toHaveLength(3);
  });
});

describe("the SBOM", () => {
  interface Component {
    readonly name: string;
    readonly version: string;
    readonly purl: string;
    readonly licenses?: readonly object[];
    readonly properties?: readonly { readonly name: string; readonly value: string }[];
  }
  const components = (kind: string) => {
    const { components: all } = JSON.parse(contentOf("usr/share/sbom/ambient-cni.cdx.json")) as {
      components: Component[];
    };
    return all.filter(({ purl }) => purl.startsWith(`pkg:${kind}/`));
  };

  test("in the image is the one beside the archive", () => {
    expect(contentOf("usr/share/sbom/ambient-cni.cdx.json")).toBe(readFileSync(`${image.base}.cdx.json`, "utf8"));
  });

  test("names the Debian packages that scanners find, and those inside the plugin; each brings its licence", () => {
    const isStatic = ({ properties }: Component) =>
      properties?.some(({ name }) => name === "ambient-cni:linked-into") ?? false;
    const shipped = components("deb").filter((one) => !isStatic(one));
    const listed = readdirSync(join(image.root, "var/lib/dpkg/status.d")).map((name) => {
      const control = contentOf(`var/lib/dpkg/status.d/${name}`);
      return `${/^Package: (.*)$/m.exec(control)?.[1]} ${/^Version: (.*)$/m.exec(control)?.[1]}`;
    });
    expect(shipped.map(({ name, version }) => `${name} ${version}`).sort()).toEqual(listed.sort());
    for (const { name } of shipped) expect(contentOf(`usr/share/doc/${name}/copyright`).length).toBeGreaterThan(200);
    expect(
      components("deb")
        .filter(isStatic)
        .map(({ name }) => name),
    ).toEqual(["libc6-dev", "libgcc-12-dev", "libjansson-dev"]);
  });

  test("names the npm packages in the bundle, with licence and its text", () => {
    const npm = components("npm");
    expect(npm.map(({ name }) => name)).toEqual(
      expect.arrayContaining(["@kubernetes/client-node", "commander", "pino", "valibot"]),
    );
    expect(npm.map(({ name }) => name)).not.toContain("esbuild");
    for (const { name, version, licenses } of npm) {
      expect(licenses, name).toHaveLength(1);
      expect(readdirSync(join(image.root, `usr/share/doc/npm/${name}@${version}`)).length, name).toBeGreaterThan(0);
    }
  });

  test("names Node, whose version is what runs", () => {
    expect(components("generic").map(({ version }) => `v${version}\n`)).toEqual([
      image.run(["node", "--version"]).stdout,
    ]);
  });
});

describe("run", () => {
  test("as upstream's image: install-cni on the PATH, as root", () => {
    expect(image.config.config).toMatchObject({ Cmd: ["install-cni"], User: "0:0" });
    const path =
      image.config.config.Env.find((pair) => pair.startsWith("PATH="))
        ?.slice(5)
        .split(":") ?? [];
    expect(path).toEqual(expect.arrayContaining(["/opt/cni/bin", "/usr/local/bin", "/usr/sbin"]));
  });

  test("install-cni refuses a wrong setting by name, with status 2", () => {
    const wrong = image.run(["install-cni", "--log_output_level=default:loud"], {
      env: { AMBIENT_CNI_ENGINE: "magic", GOMEMLIMIT: "100M" },
    });
    expect(wrong.status).toBe(2);
    expect(wrong.stderr).toContain('--log_output_level="default:loud"');
    expect(wrong.stderr).toContain('AMBIENT_CNI_ENGINE="magic"');
    expect(wrong.stderr).toContain('GOMEMLIMIT="100M"');
    expect(wrong.stdout).toBe("");
  });

  test("install-cni starts as the chart starts it, without a warning of Node's", () => {
    const started = image.run(["install-cni", "--log_output_level=info", "--log_as_json"], {
      env: { GOMEMLIMIT: "134217728", NODE_NAME: "worker-1", AMBIENT_ENABLED: "true" },
    });
    // It has no node around it: no host, no API server.
    expect(started.status).toBe(1);
    const [first, ...more] = started.stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(first).toMatchObject({ msg: "ambient-cni starting", version: image.version, node: "worker-1" });
    expect(more.at(-1)).toMatchObject({ level: "error", msg: "the agent cannot start" });
    expect(started.stderr).toBe("");
  });

  test("ambient-cni is the command line, and works without an agent", () => {
    expect(image.run(["ambient-cni", "--version"])).toEqual({ stdout: `${image.version}\n`, stderr: "", status: 0 });
    const status = image.run(["ambient-cni", "status", "-o", "json"]);
    expect(status.stderr).toBe("");
    expect(JSON.parse(status.stdout).schemaVersion).toBe(1);
  });

  test("the playground says where it can be had", () => {
    const { status, stderr } = image.run(["ambient-cni", "sandbox", "demo"]);
    expect(stderr).toBe(
      "ambient-cni: the playground needs bash, ip, mount, setpriv, unshare: run it from a checkout (npm run demo), not in the image\n",
    );
    expect(status).toBe(1);
  });

  test("the addon loads and reads the kernel", () => {
    const script = 'process.stdout.write(String(require("/app/agent.node").abiVersion))';
    expect(image.run(["node", "-e", script])).toEqual({
      stdout: expect.stringMatching(/^\d+$/),
      stderr: "",
      status: 0,
    });
  });

  test("the plugin answers without an agent", () => {
    const { stdout, status } = image.run(["istio-cni"], {
      env: { CNI_COMMAND: "VERSION" },
      input: '{"cniVersion":"1.0.0"}',
    });
    expect(JSON.parse(stdout).supportedVersions).toContain("1.1.0");
    expect(status).toBe(0);
  });

  test("nft takes every rule that the agent writes", () => {
    const tables = golden(".nft").map((text, at) =>
      text.startsWith("add table") ? text : `table inet test${at} {\n${text}}\n`,
    );
    expect(tables.length).toBeGreaterThan(10);
    expect(image.run(["nft", "-f", "-"], { input: tables.join("") })).toEqual({ stdout: "", stderr: "", status: 0 });
  });

  test.each([
    ["iptables", "nft"],
    ["ip6tables", "nft"],
    ["iptables", "legacy"],
    ["ip6tables", "legacy"],
  ])("%s-%s-restore takes every rule that the agent writes", (program, variant) => {
    const sections = golden(".iptables").flatMap((text) =>
      text.split(/^(?=# ip6?tables )/m).filter((section) => section.startsWith(`# ${program} `)),
    );
    expect(sections.length).toBeGreaterThan(10);
    // As the agent calls it: a table comes in two parts.
    const restored = image.run([`${program}-${variant}-restore`, "--noflush", "--wait"], { input: sections.join("") });
    expect(restored).toEqual({ stdout: "", stderr: "", status: 0 });
  });
});

test("what this machine has beside the image's own files is not in it", () => {
  const text = readFileSync(join(image.root, "app/agent.node"), "latin1");
  expect(text).not.toContain(realpathSync(resolve(import.meta.dirname, "../..")));
  expect(statSync(join(image.root, "app/agent.mjs")).mtimeMs).toBe(0);
});
