// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { licenceTexts } from "../../../install/image/npm-licences.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

function packageIn(dir: ScratchDir, description: object, files: Readonly<Record<string, string>>): string {
  const folder = dir.file("package");
  mkdirSync(folder);
  writeFileSync(`${folder}/package.json`, JSON.stringify(description));
  for (const [name, text] of Object.entries(files)) writeFileSync(`${folder}/${name}`, text);
  return folder;
}

test("a package's own texts, by whatever name, and nothing that only sounds like one", () => {
  using dir = new ScratchDir();
  const names = ["LICENSE", "license.md", "LICENCE-MIT", "NOTICE", "COPYING.txt"];
  const files = Object.fromEntries([...names, "licenses.js", "README.md"].map((name) => [name, `text of ${name}`]));
  const folder = packageIn(dir, { license: "MIT", author: "A" }, files);
  expect(licenceTexts(folder, [])).toEqual([...names].sort().map((name) => ({ name, text: `text of ${name}` })));
});

test("without one, the notices at the head of what is bundled, each once", () => {
  using dir = new ScratchDir();
  const notice = "// Copyright 2008 Somebody\n//\n// Redistribution is fine.\n";
  const files = {
    "a.js": `${notice}code();\n`,
    "b.js": `${notice}\nmore();\n`,
    "c.js": "// An ordinary comment\nx();\n",
  };
  const folder = packageIn(dir, { license: "BSD-3-Clause" }, files);
  expect(
    licenceTexts(
      folder,
      Object.keys(files).map((name) => `${folder}/${name}`),
    ),
  ).toEqual([{ name: "LICENSE", text: "Copyright 2008 Somebody\n\nRedistribution is fine.\n" }]);
});

test("MIT of a named author can be written out", () => {
  using dir = new ScratchDir();
  const folder = packageIn(dir, { license: "MIT", author: { name: "Some One" } }, { "a.js": "x();\n" });
  const [text, ...more] = licenceTexts(folder, [`${folder}/a.js`]);
  expect(more).toEqual([]);
  expect(text?.text).toMatch(/^Copyright \(c\) Some One\n\nPermission is hereby granted/);
});

test.each([{ license: "MIT" }, { license: "Apache-2.0", author: "Some One" }])(
  "a package that leaves its terms open stops the build: %j",
  (description) => {
    using dir = new ScratchDir();
    expect(() => licenceTexts(packageIn(dir, description, {}), [])).toThrow("brings no text of its licence");
  },
);
