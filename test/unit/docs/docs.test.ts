// SPDX-License-Identifier: Apache-2.0
// The documentation as a site: every link leads somewhere, nothing is fetched from elsewhere, and every command
// line of ours is one that the program takes.
import { existsSync, readFileSync } from "node:fs";
import { join, posix } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { commandsIn } from "../../../scripts/docs/commands.ts";
import { readPage } from "../../../scripts/docs/page.ts";
import { makeSite } from "../../../scripts/docs/site.ts";
import { refusalOf } from "../../support/cli-parse.ts";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
const site = makeSite(ROOT);
const readme = readPage("../README.md", readFileSync(join(ROOT, "README.md"), "utf8"));
const byPath = new Map([...site.pages, readme].map((page) => [posix.normalize(`docs/${page.source}`), page]));

test.each([...byPath.keys()])("%s: every link leads to a file of the repository, and to a heading of it", (path) => {
  for (const link of byPath.get(path)?.links ?? []) {
    if (link.path === undefined) continue;
    expect(existsSync(join(ROOT, link.path)), link.href).toBe(true);
    if (link.anchor === undefined) continue;
    expect([...(byPath.get(link.path)?.anchors ?? [])], link.href).toContain(link.anchor);
  }
});

test("what the README lets one try installs what it needs", () => {
  const { scripts } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as {
    scripts: Record<string, string>;
  };
  const tried = /## Try it[\s\S]*?```sh\n([\s\S]*?)```/.exec(readFileSync(join(ROOT, "README.md"), "utf8"))?.[1] ?? "";
  const names = [...tried.matchAll(/^npm (?:run )?([\w:]+)/gm)].map(([, name = ""]) => name);
  expect(names).toContain("docs");
  for (const name of names) {
    const [file = ""] = scripts[name]?.split(" ") ?? [];
    const script = readFileSync(join(ROOT, file), "utf8");
    expect(file === "scripts/prepare" || script.includes("scripts/prepare"), `${name}: ${scripts[name]}`).toBe(true);
  }
});

const html = [...site.files].filter(([name]) => name.endsWith(".html"));

test.each(html.map(([name]) => name))(
  "%s of the site: what it links to is in the site, and nothing comes from elsewhere",
  (name) => {
    const text = String(site.files.get(name));
    for (const [, attribute, value = ""] of text.matchAll(/ (href|src)="([^"]*)"/g)) {
      if (/^https?:/.test(value)) {
        expect(attribute, value).toBe("href");
        continue;
      }
      const [file = "", anchor] = value.split("#");
      const target = file === "" ? name : posix.normalize(posix.join(posix.dirname(name), file));
      expect([...site.files.keys()], value).toContain(target);
      if (anchor !== undefined && anchor !== "")
        expect(String(site.files.get(target)), value).toContain(`id="${anchor}"`);
    }
    expect(text).not.toMatch(/<script|<iframe|@import|url\(|<link rel="stylesheet" href="http/);
  },
);

test("the first page is the index; every page has a place in the contents", () => {
  expect(site.files.get("index.html")).toBe(site.files.get("START.html"));
  expect(html).toHaveLength(site.pages.length + 1);
});

test("pictures are well-formed, and have words for who can't see them", () => {
  for (const [name, content] of site.files) {
    if (!name.startsWith("concepts/") || !name.endsWith(".svg")) continue;
    expect(String(content), name).toMatch(/^<svg [^>]*viewBox="[^"]+" role="img" aria-label="[^"]{20,}"/);
    expect(String(content), name).not.toMatch(/href=|<script|<image/);
  }
  for (const [name, content] of html) {
    for (const [image] of String(content).matchAll(/<img [^>]*>/g)) expect(image, name).toMatch(/ alt="[^"]+"/);
  }
});

const COMMANDS = [...byPath].flatMap(([path, { source }]) =>
  commandsIn(readFileSync(join(ROOT, "docs", source), "utf8")).map(({ text, argv }) => ({ path, text, argv })),
);

test("every command line of ours in the documentation is one that the program takes", () => {
  expect(COMMANDS.length).toBeGreaterThan(60);
  for (const { path, text, argv } of COMMANDS) {
    expect(refusalOf(argv), `${path}: ambient-cni ${text}`).toBeUndefined();
  }
});

test.each([
  ["bogus", /unknown command/],
  ["sandbox bogus", /unknown command/],
  ["pods --bogus", /unknown option/],
  ["inspect --diff", /argument is missing/],
  ["status now", /too many/],
] as const)("ambient-cni %s would be found out", (text, reason) => {
  expect(refusalOf(text.split(" "))).toMatch(reason);
});

test("commands are found wherever they are shown, and what programs print is none", () => {
  const page = [
    "Run `ambient-cni pods -o wide`, `ambient-cni remove --host-root DIR [--uncapture]`; `ambient-cni.sock` is a file.",
    "```",
    "$ ambient-cni status   # all well?",
    "ambient-cni 0.1.0  node node1",
    "kubectl exec ds/istio-cni-node -- ambient-cni log zds:debug",
    "export PATH=/tmp/x; ambient-cni status",
    "ambient-cni monitor -o json > flows",
    "ambient-cni trace shop/web '[fd00::4]:443' | cat",
    "```",
  ].join("\n");
  expect(commandsIn(page).map(({ argv }) => argv.join(" "))).toEqual([
    "pods -o wide",
    "remove --host-root DIR --uncapture",
    "status",
    "log zds:debug",
    "monitor -o json",
    "trace shop/web [fd00::4]:443",
  ]);
});
