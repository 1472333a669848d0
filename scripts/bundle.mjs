// SPDX-License-Identifier: Apache-2.0
// Bundles the agent and its command line into dist/agent.mjs and the parts that it loads when they are
// asked for: a bundle takes a third of the memory of its packages, and the playground costs a node none.
// `--out DIR` puts it elsewhere, `--metafile FILE` writes down what is in it.
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import { build } from "esbuild";

const { out, metafile: metafilePath } = parseArgs({
  options: { out: { type: "string", default: "dist" }, metafile: { type: "string" } },
}).values;

const { version } = JSON.parse(readFileSync("package.json", "utf8"));

const { metafile } = await build({
  entryPoints: { agent: "src/main.ts" },
  outdir: out,
  outExtension: { ".js": ".mjs" },
  // Flat: src/native/load.ts looks for the addon beside the part that it became.
  chunkNames: "agent-[hash]",
  splitting: true,
  metafile: true,
  bundle: true,
  platform: "node",
  format: "esm",
  target: "node20",
  logLevel: "warning",
  legalComments: "none",
  // Function names stay, so that a stack trace in a log says something; minified text costs 3 MB less.
  minify: true,
  keepNames: true,
  define: { "process.env.AMBIENT_CNI_VERSION": JSON.stringify(version) },
  // CommonJS packages in the bundle ask for node: modules by require.
  banner: {
    js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
  },
});

// Parts of earlier builds.
const parts = new Set(Object.keys(metafile.outputs).map((path) => basename(path)));
for (const name of readdirSync(out)) {
  if (/^agent-[A-Z0-9]{8}\.mjs$/.test(name) && !parts.has(name)) rmSync(join(out, name));
}
if (metafilePath !== undefined) writeFileSync(metafilePath, JSON.stringify(metafile));
