// SPDX-License-Identifier: Apache-2.0
// Every command line that a page shows is run by a test, or somebody has said why not; and what such a line names of
// ours (files, values of the chart, objects, scripts) is there.
import { existsSync, readFileSync } from "node:fs";
import { join, posix } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { linesIn } from "../../../scripts/docs/commands.ts";
import { makeSite } from "../../../scripts/docs/site.ts";
import { buildProgram } from "../../../src/cli/commands.ts";
import { processEnv } from "../../../src/cli/env.ts";
import { messageOf } from "../../../src/core/errors.ts";
import { refusalOf } from "../../support/cli-parse.ts";
import { RenderedChart } from "../../support/manifests.ts";
import { ELSEWHERE } from "../../support/shown/elsewhere.ts";
import { KEPT, START_PAGE, TRACE_PAGE, TYPED } from "../../support/shown/typed.ts";
import { NO_COMMANDS, UNRUN } from "../../support/shown/unrun.ts";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
const read = (path: string): string => readFileSync(join(ROOT, path), "utf8");
const SOURCES = [...makeSite(ROOT).pages.map(({ source }) => posix.join("docs", source)), "README.md"];
const SHOWN = SOURCES.flatMap((path) => linesIn(read(path)).map((line) => ({ ...line, path })));

/** Tests that compare what a page's transcripts show with what the commands say. */
const TRANSCRIBED: Readonly<Record<string, string>> = {
  "docs/MIGRATION-SIDECAR.md": "test/e2e/migration-sidecar.test.ts",
  "docs/TROUBLESHOOTING.md": "test/e2e/troubleshooting.test.ts",
};
const typed = new Set([...TYPED.map(({ line }) => line), ...START_PAGE, ...TRACE_PAGE, KEPT.line]);
const elsewhere = new Set(ELSEWHERE.flatMap(({ lines }) => lines));
const unrun = UNRUN.flatMap(({ lines }) => lines);
const NAMES = buildProgram(processEnv(), () => undefined).commands.map((command) => command.name());

/** Which of ours a line is about, where it shows only a part of one. */
function abbreviated(text: string): boolean {
  const [first = "", second = ""] = text.split(" ");
  if (first === "ambient-cni") return text.split(" ").length === 2 && (NAMES.includes(second) || second === "COMMAND");
  return NAMES.includes(first);
}

const isRun = (text: string): boolean => typed.has(text) || elsewhere.has(text);

test("every command line of the documentation is run by a test, or it is said why not", () => {
  expect(SHOWN.length).toBeGreaterThan(250);
  const undecided = SHOWN.filter(({ path, text, transcript }) => {
    if (transcript !== undefined) return TRANSCRIBED[path] === undefined;
    return !isRun(text) && !unrun.includes(text) && !NO_COMMANDS.includes(text) && !abbreviated(text);
  });
  expect(undecided).toEqual([]);
});

test("a command's name alone stands for one that is run", () => {
  const named = SHOWN.map(({ text }) => /^ambient-cni (\S+)$/.exec(text)?.[1] ?? "").filter((name) =>
    NAMES.includes(name),
  );
  const all = [...typed, ...elsewhere];
  for (const name of new Set(named))
    expect(
      all.some((line) => line.startsWith(`ambient-cni ${name}`)),
      name,
    ).toBe(true);
  // Those that no page shows with arguments are shown by their own help.
  for (const name of NAMES)
    if (!["install-cni", "complete"].includes(name)) expect(all.join("\n"), name).toContain(`ambient-cni ${name}`);
});

test("parts of a command of ours are parts that it has", () => {
  const parts = SHOWN.filter(({ text }) => NAMES.includes(text.split(" ")[0] ?? ""));
  expect(parts.length).toBeGreaterThan(5);
  for (const { path, text } of parts) expect(missing(text), `${path}: ${text}`).toMatch(/^$|argument.* missing$/);
});

/** Why the program does not take it; a word that has to follow may be left out. */
function missing(text: string): string {
  try {
    return refusalOf(text.split(" ")) ?? "";
  } catch (error) {
    return messageOf(error);
  }
}

test("what is typed, run elsewhere or not run is what a page shows, and each is one of them", () => {
  const texts = new Set(SHOWN.flatMap(({ text }) => [text, text.replace(/^kubectl .* -- (?=ambient-cni )/, "")]));
  const lists = [...typed, ...elsewhere, ...unrun, ...NO_COMMANDS];
  // Undoes what others do; no page has it but in a comment.
  expect(lists.filter((line) => !texts.has(line))).toEqual(["ambient-cni log --reset"]);
  expect(new Set(lists).size).toBe(lists.length);
});

test("transcripts are of pages whose test compares them", () => {
  for (const [path, file] of Object.entries(TRANSCRIBED)) {
    expect(read(file), file).toContain(`docs/${posix.basename(path)}`);
    expect(read(file), file).toMatch(/withTranscripts\(document, terminal\.transcripts\)/);
  }
});

test.each(ELSEWHERE.map((one) => [one.lines.join(", "), one] as const))(
  "%s: its test runs it",
  (_name, { test: file, by }) => {
    expect(read(file)).toMatch(by);
  },
);

test("the scenario of docs/SCENARIOS.md is one of the repository's", () => {
  const [, block] = /```yaml\n([\s\S]*?)```/.exec(read("docs/SCENARIOS.md")) ?? [];
  expect(read("scenarios/rules-flushed.yaml").replace(/^#.*\n/, "")).toBe(block);
});

test("what is run in the agent's container is typed on the node", () => {
  for (const line of unrun) {
    const [, inner] = /^kubectl .* exec .* -- (ambient-cni .*)$/.exec(line) ?? [];
    if (inner !== undefined) expect(typed, line).toContain(inner);
  }
});

const FILE = /^(?:-f )?((?:install|docs|scripts|scenarios|src|test)\/[\w./-]+)$/;

test("files that are named are there", () => {
  const files = unrun.flatMap((line) => line.split(" ").flatMap((word) => FILE.exec(word)?.[1] ?? []));
  expect(files).toContain("install/chart");
  for (const file of files) expect(existsSync(join(ROOT, file)), file).toBe(true);
});

/** What the schema of the chart's values has at a path; undefined: no such value. */
function valueAt(path: string): unknown {
  let at: unknown = JSON.parse(read("install/chart/values.schema.json"));
  for (const name of path.split("."))
    at = (at as { properties?: Record<string, unknown> } | undefined)?.properties?.[name];
  return at;
}

test("values that Helm sets are values of the chart, but for the one that shows that it is refused", () => {
  const set = SHOWN.filter(({ text }) => text.includes(" install/chart ")).flatMap(({ text }) =>
    [...text.matchAll(/--set ([\w.]+)=/g)].map(([, name = ""]) => name),
  );
  expect(new Set(set.filter((name) => valueAt(name) === undefined))).toEqual(new Set(["cniBinDri"]));
  expect(set).toContain("image");
});

test("objects that kubectl names are the chart's", () => {
  const { objects } = new RenderedChart("default");
  const has = (kind: string, name: string) =>
    objects.some((object) => object.kind.toLowerCase() === kind && object.metadata.name === name);
  const kinds = { ds: "daemonset", daemonset: "daemonset", serviceaccount: "serviceaccount" } as const;
  let named = 0;
  for (const line of unrun.filter((text) => text.startsWith("kubectl -n istio-system "))) {
    for (const [, short, name = ""] of line.matchAll(/\b(ds|daemonset|serviceaccount)[/ ]([a-z-]+)/g)) {
      expect(has(kinds[short as keyof typeof kinds], name), line).toBe(true);
      named += 1;
    }
    const [, key = "", value] = /-l (k8s-app)=(\S+)/.exec(line) ?? [];
    const labels = new RenderedChart("default").only("DaemonSet").spec?.template.metadata?.labels ?? {};
    if (value !== undefined) expect(labels[key], line).toBe(value);
  }
  expect(named).toBeGreaterThan(8);
  for (const kind of ["clusterrole", "clusterrolebinding"]) expect(has(kind, "istio-cni")).toBe(true);
  const [, patch = ""] =
    unrun.map((line) => /^kubectl patch istiocni default .* -p '(.*)'$/.exec(line)).find((it) => it) ?? [];
  const sail = read("install/sail/istiocni.yaml");
  expect(sail).toMatch(/^kind: IstioCNI\nmetadata:\n(?: +#.*\n)* {2}name: default$/m);
  expect(JSON.parse(patch)).toEqual({ spec: { values: { cni: { image: /^ +image: (\S+)$/m.exec(sail)?.[1] } } } });
});

test("npm's scripts are there, with the benchmarks and options that are named", () => {
  const { scripts } = JSON.parse(read("package.json")) as { scripts: Record<string, string> };
  for (const { text } of SHOWN) {
    const [, name, rest = ""] = /^npm (?:run )?([\w:]+)(.*)$/.exec(text) ?? [];
    if (name === undefined) continue;
    expect(scripts, text).toHaveProperty([name]);
    const program = {
      bench: `test/bench/${/^ -- ([a-z]+)/.exec(rest)?.[1] ?? "bench"}.ts`,
      "build:image": "install/image/main.ts",
      demo: "src/cli/commands/sandbox.ts",
    }[name];
    if (program === undefined) expect(rest, text).toBe("");
    else for (const [, option] of rest.matchAll(/--([a-z]+)/g)) expect(read(program), text).toContain(option);
  }
});
