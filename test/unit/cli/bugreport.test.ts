// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { gunzipSync, gzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { tarBlocks } from "../../../install/image/tar.ts";
import { type Entry, Tree } from "../../../install/image/tree.ts";
import { Collection } from "../../../src/cli/bugreport/collection.ts";
import { ruleFiles } from "../../../src/cli/bugreport/kernel.ts";
import { packReport } from "../../../src/cli/bugreport/pack.ts";
import { unpackReport } from "../../../src/cli/bugreport/unpack.ts";
import { AgentError } from "../../../src/core/errors.ts";
import type { DecisionsReport } from "../../../src/core/report/decisions.ts";
import type { LinesReport, MetricsReport } from "../../../src/core/report/lines.ts";
import { CONFIG, ENGINES, INSPECT, LEVELS, PODS, STATUS, VERSIONS } from "../../fixtures/reports.ts";
import { cli, withAgent } from "../../support/cli-env.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

const { pods: _, ...HEAD } = PODS;
const DECISIONS: DecisionsReport = { ...HEAD, pods: [] };
const LINES: LinesReport = { ...HEAD, lines: ["first", "second", "last"] };
const METRICS: MetricsReport = { ...HEAD, text: "istio_cni_install_ready 1\n" };
const DOCUMENTS = {
  status: STATUS,
  pods: PODS,
  engines: ENGINES,
  config: CONFIG,
  log: LEVELS,
  version: VERSIONS,
  inspect: INSPECT,
  decisions: DECISIONS,
  lines: LINES,
  metrics: METRICS,
};
const JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl-_x";
const AT = new Date("2026-01-01T12:00:00Z");

/** A node of its own as far as files go: one CNI configuration. */
function nodeIn(scratch: ScratchDir, conf: object = {}): Readonly<Record<string, string>> {
  const directory = scratch.file("net.d");
  mkdirSync(directory);
  const list = { cniVersion: "1.0.0", name: "net", plugins: [{ type: "bridge", ...conf }] };
  writeFileSync(`${directory}/10-net.conflist`, JSON.stringify(list));
  return { MOUNTED_CNI_NET_DIR: directory, MONITORING_PORT: "0" };
}

test("every reading command says of a report what it said of the node", async () => {
  using scratch = new ScratchDir();
  const environment = nodeIn(scratch);
  const file = scratch.file("worker-3.tgz");
  await withAgent(DOCUMENTS, async (socket) => {
    const made = await cli(["bugreport", "--socket", socket, "-o", file], { environment });
    expect(made, made.stderr).toMatchObject({ status: 0, stderr: "" });
    expect(made.stdout).toMatch(
      /^collected \d+ items in 0\.0 s \(documents x9, text x4, inspect x\d, metrics, node x\d+\); \d+ failed; without credentials\n\S+\/worker-3\.tgz\n$/,
    );
    expect(statSync(file).mode & 0o7777).toBe(0o600);
    expect(readdirSync(scratch.path).filter((name) => name.includes(".tmp."))).toEqual([]);
    for (const argv of [
      ["status"],
      ["status", "--brief"],
      ["pods"],
      ["pods", "-o", "wide"],
      ["pods", "10.1.2.14"],
      ["pods", "nowhere"],
      ["engines", "-o", "wide"],
      ["config"],
      ["log"],
      ["log", "--last", "2"],
      ["version"],
      ["inspect", "web"],
      ["inspect", "web", "--diff"],
    ]) {
      const asked = await cli([...argv, "--socket", socket]);
      const read = await cli([...argv, "--from", file]);
      const stdout = read.stdout
        .replace(/^source: report \(worker-3\.tgz\)\n/, "")
        .replace("source: report (worker-3.tgz)", "source: agent");
      expect({ ...read, stdout }, argv.join(" ")).toEqual(asked);
    }
    const files = unpackReport(readFileSync(file));
    expect(files.get("metrics.txt")?.toString()).toBe(METRICS.text);
    expect(files.get("text/log.txt")?.toString()).toBe("first\nsecond\nlast\n");
    for (const path of ["node/facts.json", "node/bpf.json", "node/netns.json", "node/files.txt"]) {
      expect([...files.keys()]).toContain(path);
    }
    const checked = await cli(["check", "--from", file, "--category", "cni,agent"]);
    expect(checked.status, checked.stdout).toBe(1);
    expect(checked.stdout).toMatch(/^source: report \(worker-3\.tgz\)\ncni\n {2}× the plugin's binary/);
    expect(checked.stdout).toMatch(/\nagent\n {2}√ the agent answers: version 1\.0\.0\n[\s\S]*\d+ not known\n$/);
    expect(checked.stdout).not.toContain("\nkernel\n");
    const json = await cli(["-o", "json", "--from", file, "pods", "--all", "--sort", "name"]);
    expect(JSON.parse(json.stdout)).toMatchObject({
      source: { from: "report", note: "worker-3.tgz" },
      node: "worker-3",
    });
  });
});

test("what is asked of the node alone is refused", async () => {
  for (const argv of [
    ["check", "--pre"],
    ["verify", "--all"],
    ["reset-existing", "--all"],
    ["log", "zds:debug"],
    ["log", "--reset"],
    ["status", "--wait"],
    ["status", "--watch"],
    ["bugreport"],
    ["ui"],
    ["engines", "--now"],
    ["inspect", "web", "--netns-shell"],
    ["trace", "web", "192.0.2.1:80"],
    ["plan", "web"],
    ["enroll", "--netns", "/nonexistent", "--ip", "192.0.2.1", "--dry-run"],
    ["unenroll", "--netns", "/nonexistent"],
    ["remove", "--dry-run"],
  ]) {
    const { status, stdout, stderr } = await cli([...argv, "--from", "/nonexistent.tgz"]);
    expect([status, stdout], argv.join(" ")).toEqual([2, ""]);
    expect(stderr).toMatch(/^ambient-cni: .*report/);
  }
});

test("no credential gets into it, wherever it stood; --redact leaves out more", async () => {
  using scratch = new ScratchDir();
  const environment = {
    ...nodeIn(scratch, {
      bridge: "conf-quite-plain",
      k8s_auth_token: "hunter2-conf",
      policy: { "client-key-data": "hunter2-key", passwords: ["hunter2-first", "two words of hunter2"] },
      note: 'the "password": "hunter2 in a text"',
    }),
    // Told nowhere by a name, but known by this one.
    VAULT_TOKEN: "s.opaque-and-known",
  };
  writeFileSync(scratch.file("net.d/calico-kubeconfig"), "hunter2, in what is no configuration");
  const identity = {
    serviceAccount: "web",
    labels: { app: "web" },
    annotations: { "vault/password": "hunter2-annotation", note: `see ${JWT}`, plain: "quite-plain" },
    namespaceLabels: null,
  };
  const setting = { setting: "X_TOKEN", origin: "env X_TOKEN", status: "honoured", value: `Bearer ${JWT}` };
  const plain = { ...setting, setting: "X_PLAIN", origin: "env X_PLAIN", value: "set-quite-plain" };
  // What sentences say of wrong annotations, and what logs say of anything.
  const wrong = 'annotation istio.io/x: "said-\\"quite-plain" is not a CIDR; annotation a/b=bare-quite-plain';
  const decision = { ...INSPECT.decisions[0], detail: wrong } as never;
  const [pod, ...others] = PODS.pods;
  const problem = { ...STATUS.problems[0], message: wrong } as never;
  const documents = {
    ...DOCUMENTS,
    inspect: { ...INSPECT, identity, decisions: [decision] },
    decisions: { ...DECISIONS, pods: [{ uid: "1", pod: "shop/web", decisions: [decision] }] },
    pods: { ...PODS, pods: [{ ...pod, reason: "WRONG", detail: wrong, mesh: "pending" } as never, ...others] },
    config: { ...CONFIG, settings: [...CONFIG.settings, setting, plain] },
    lines: {
      ...LINES,
      lines: ["login with s.opaque-and-known", "a log: quite-plain", `token ${JWT}`, "https://me:hunter2@vault/x"],
    },
    metrics: { ...METRICS, text: 'x{secret="hunter2 and more"} 1\n' },
    status: { ...STATUS, problems: [{ ...STATUS.problems[0], message: `password="hunter2 ${JWT}` } as never, problem] },
  };
  await withAgent(documents, async (socket) => {
    for (const [redact, kept] of [
      [[], true],
      [["--redact"], false],
    ] as const) {
      const file = scratch.file(`${kept}.tgz`);
      const argv = ["bugreport", "--pod", "web", "--socket", socket, "-o", file, ...redact];
      expect((await cli(argv, { environment })).status).toBe(0);
      const text = gunzipSync(readFileSync(file)).toString("utf8");
      expect(text.match(/.{0,80}(?:hunter2|eyJ|opaque-and-known).{0,20}/g)).toBeNull();
      expect(text).toContain("calico-kubeconfig");
      for (const name of ["k8s_auth_token", "login with [redacted]"]) expect(text.includes(name)).toBe(kept);
      const files = unpackReport(readFileSync(file));
      const telling = [...files].filter(([, content]) => content.includes("quite-plain")).map(([path]) => path);
      const where = [
        "documents/config.json",
        "documents/decisions.json",
        "documents/lines.json",
        "documents/pods.json",
        "documents/status.json",
        "node/cni/10-net.conflist",
        "text/log.txt",
        "text/pods.txt",
        "text/status.txt",
      ];
      if (kept) expect(telling).toEqual(expect.arrayContaining(where));
      else expect(telling).toEqual([]);
      const omitted = /^documents\/lines\.json: left out by --redact\nnode\/cni\/: .*\nnode\/logs\/: .*\n$/m;
      expect(omitted.test(files.get("errors.txt")?.toString() ?? "")).toBe(!kept);
      expect([...files.keys()].filter((path) => path.includes("inspect/"))).toHaveLength(1);
      const read = await cli(["inspect", "web", "--from", file]);
      expect(read.stdout).toContain("vault/password=[redacted]");
    }
  });
});

test("what can't be had is said in errors.txt, and by who looks for it", async () => {
  using scratch = new ScratchDir();
  const environment = { ...nodeIn(scratch), MOUNTED_CNI_NET_DIR: scratch.file("none") };
  const file = scratch.file("r.tgz");
  const documents = {
    ...DOCUMENTS,
    get log(): never {
      throw new AgentError("BROKEN", `it broke on ${JWT}`);
    },
  };
  await withAgent(documents, async (socket) => {
    const made = await cli(["bugreport", "--socket", socket, "-o", file], { environment });
    expect(made, made.stderr).toMatchObject({ status: 0, stderr: "" });
  });
  const errors = unpackReport(readFileSync(file)).get("errors.txt")?.toString() ?? "";
  expect(errors).toMatch(/^documents\/log\.json: it broke on \[redacted\]$/m);
  expect(errors).toMatch(/^node\/cni\/: .*none/m);
  const log = await cli(["log", "--from", file]);
  expect(log).toMatchObject({ status: 1, stdout: "" });
  expect(log.stderr).toBe("ambient-cni: r.tgz holds no documents/log.json (it broke on [redacted])\n");
});

test("a report that the kernel made says so, and no agent is a finding of it", async () => {
  using scratch = new ScratchDir();
  const source = { from: "kernel", note: "agent unreachable: ENOENT /x" } as const;
  const status = { ...STATUS, source, version: null, components: [] };
  const file = scratch.file("r.tgz");
  writeFileSync(file, await packReport(new Map([["documents/status.json", json(status)]]), AT));
  const { status: exit, stdout } = await cli(["status", "--brief", "--from", file]);
  expect([exit, stdout]).toEqual([3, "degraded: r.tgz: kernel, agent unreachable: ENOENT /x\n"]);
});

test("it goes where it was told, or the reason is told", async () => {
  using scratch = new ScratchDir();
  const environment = nodeIn(scratch);
  await withAgent(DOCUMENTS, async (socket) => {
    const nowhere = await cli(["bugreport", "--socket", socket, "-o", scratch.file("no/r.tgz")], { environment });
    expect(nowhere).toMatchObject({ status: 1, stdout: "" });
    expect(nowhere.stderr).toMatch(
      /^ambient-cni: no report can be written to \S+\/no: ENOENT\n {2}-o names a file elsewhere/,
    );
    expect(await cli(["bugreport", "-o", ""], { environment })).toMatchObject({ status: 2, stdout: "" });
    const path = scratch.file("json.tgz");
    const json = await cli(["-o", "json", "--socket", socket, "bugreport", "-o", path], { environment });
    expect(JSON.parse(json.stdout)).toMatchObject({ file: path, seconds: 0 });
    const unknown = await cli(["bugreport", "--socket", socket, "--pod", "nosuch"], { environment });
    expect(unknown).toMatchObject({ status: 1, stdout: "" });
    expect(unknown.stderr).toContain('no pod of this node is "nosuch"');
  });
});

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

function archive(...entries: readonly Entry[]): Buffer {
  return gzipSync(Buffer.concat([...tarBlocks(entries)]));
}

function file(path: string, content: Uint8Array = json(STATUS)): Entry {
  return { type: "file", path, mode: 0o600, content };
}

const STATUS_PATH = "bugreport/documents/status.json";
const GOOD = archive(file(STATUS_PATH));
const BROKEN_SUM = gunzipSync(GOOD);
BROKEN_SUM[0] = 0x63;

test.each<[string, Buffer, RegExp]>([
  ["nothing", Buffer.alloc(0), /can't be unpacked: unexpected end/],
  ["text", Buffer.from("hello"), /can't be unpacked: incorrect header check/],
  ["a truncated gzip", GOOD.subarray(0, GOOD.length - 20), /can't be unpacked: unexpected end/],
  ["a truncated tar", gzipSync(gunzipSync(GOOD).subarray(0, 700)), /ends within ".*status\.json"/],
  ["a tar without an end", gzipSync(gunzipSync(GOOD).subarray(0, -1024)), /ends too early/],
  ["no tar", gzipSync(Buffer.alloc(2048, "x")), /checksum/],
  ["a changed tar", gzipSync(BROKEN_SUM), /checksum/],
  ["a bomb", gzipSync(Buffer.alloc((64 << 20) + 1)), /unpacks to more than 64 MiB/],
  ["a huge file", archive(file(STATUS_PATH, Buffer.alloc((16 << 20) + 1))), /the size of ".*" is wrong/],
  ["a way up", archive(file("bugreport/../../etc/passwd")), /"bugreport\/\.\.\/\.\.\/etc\/passwd" has no place/],
  ["a way to the root", archive(file("/etc/passwd")), /has no place/],
  ["another folder", archive(file("documents/status.json")), /has no place/],
  ["the same twice", archive(file(STATUS_PATH), file(STATUS_PATH)), /"documents\/status\.json" is in it twice/],
  ["a link", archive({ type: "symlink", path: STATUS_PATH, target: "/etc/passwd" }), /neither a file nor a folder/],
  ["no document", archive(), /holds no documents\/status\.json/],
  ["no JSON", archive(file(STATUS_PATH, Buffer.from("{"))), /status\.json in x\.tgz can't be read/],
  ["another document", archive(file(STATUS_PATH, json(PODS))), /no document "status": version/],
  ["of tomorrow", archive(file(STATUS_PATH, json({ ...STATUS, schemaVersion: 2 }))), /this program reads 1/],
])("%s ends with 1 and a sentence", async (_name, bytes, sentence) => {
  using scratch = new ScratchDir();
  const path = scratch.file("x.tgz");
  writeFileSync(path, bytes);
  const { status, stdout, stderr } = await cli(["status", "--from", path]);
  expect([status, stdout]).toEqual([1, ""]);
  expect(stderr).toMatch(sentence);
  expect(stderr.trimEnd().split("\n")).toHaveLength(1);
});

test("a path that is no report ends with a sentence", async () => {
  using scratch = new ScratchDir();
  for (const path of [scratch.file("none"), scratch.path]) {
    const { status, stdout, stderr } = await cli(["pods", "--from", path]);
    expect([status, stdout]).toEqual([1, ""]);
    expect(stderr).toContain(path);
  }
});

test("long names and names in any script are kept; empty files too", async () => {
  const names = [`node/cni/${"x".repeat(200)}.conf`, "node/cni/größe.conf", "metrics.txt"];
  const packed = await packReport(new Map(names.map((name) => [name, Buffer.alloc(0)])), AT);
  expect([...unpackReport(packed).keys()].sort()).toEqual([...names].sort());
  const tree = new Tree();
  tree.text("bugreport/a", "a");
  expect(
    unpackReport(gzipSync(Buffer.concat([...tarBlocks(tree.entries())])))
      .get("a")
      ?.toString(),
  ).toBe("a");
});

test("nothing is begun when the time is over, and a file that is too large is left out", async () => {
  const late = new Collection({ strict: false, budgetMs: 0 });
  await late.text("a.txt", () => {
    throw new Error("begun");
  });
  expect(late.errors).toEqual(["a.txt: no time left"]);
  const full = new Collection({ strict: false, budgetMs: 60_000 });
  await full.text("a.txt", () => "\n".repeat(18 << 20));
  expect(full.errors).toEqual([`a.txt: ${18 << 20} bytes are too many`]);
  for (const name of ["b", "c", "d"]) await full.text(name, () => "\n".repeat(14 << 20));
  expect([full.paths, full.errors.slice(1)]).toEqual([["b", "c"], ["d: the report is full"]]);
});

test("no program is started to show what the kernel does not have", () => {
  const has = (tables: readonly string[], legacy: readonly (4 | 6)[]) =>
    Object.fromEntries(
      ruleFiles(
        {
          nftTables: () => [...tables],
          xtables: (_, family) => (legacy.includes(family) ? [{ name: "nat", chains: [], rules: [] }] : []),
        },
        3,
      ).flatMap(([, commands]) => commands.map(({ command: [name = ""], empty }) => [name, !empty])),
    );
  const [nft, nft4, nft6] = ["nft", "iptables-nft-save", "ip6tables-nft-save"];
  const [legacy4, legacy6] = ["iptables-legacy-save", "ip6tables-legacy-save"];
  expect(has([], [])).toEqual({ [nft]: false, [nft4]: false, [nft6]: false, [legacy4]: false, [legacy6]: false });
  expect(has(["inet ambient_cni_pod"], [6])).toMatchObject({
    [nft]: true,
    [nft4]: false,
    [nft6]: false,
    [legacy6]: true,
  });
  expect(has(["ip6 nat"], [4])).toMatchObject({
    [nft]: true,
    [nft4]: false,
    [nft6]: true,
    [legacy4]: true,
    [legacy6]: false,
  });
  const unseen = () => {
    throw new Error("EOPNOTSUPP");
  };
  const all = ruleFiles({ nftTables: unseen, xtables: unseen }, 3).flatMap(([, commands]) => commands);
  expect(all.map(({ empty }) => empty)).toEqual(Array(5).fill(false));
});
