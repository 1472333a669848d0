// SPDX-License-Identifier: Apache-2.0
// `npm run docs [DIRECTORY]`: the documentation as a site of plain files, by default in dist/docs.
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { makeSite } from "./site.ts";

const ROOT = join(import.meta.dirname, "../..");
const [directory] = process.argv.slice(2);
const out = directory === undefined ? join(ROOT, "dist/docs") : resolve(directory);

const { files, pages } = makeSite(ROOT);
// A directory of somebody's own is not emptied.
if (directory === undefined) rmSync(out, { recursive: true, force: true });
for (const [name, content] of files) {
  mkdirSync(dirname(join(out, name)), { recursive: true });
  writeFileSync(join(out, name), content);
}
console.log(`${pages.length} pages in ${out}: open index.html`);
