// SPDX-License-Identifier: Apache-2.0
// The status page: one file that asks for documents beside itself (v1/NAME) and changes nothing.
import { createHash } from "node:crypto";
import { SCRIPT } from "./script.ts";
import { STYLE } from "./style.ts";

const table = (id: string, heads: readonly string[]) =>
  `<table><thead><tr>${heads.map((head) => `<th>${head}</th>`).join("")}</tr></thead><tbody id="${id}"></tbody></table>` +
  `<p class="quiet" id="${id}-none">not asked yet</p>`;

/** Nothing of it depends on the node: what a node says, the script shows as text. */
export const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>ambient-cni</title>
<style>${STYLE}</style>
</head>
<body>
<header>
<h1><span id="node">ambient-cni</span> <span id="verdict" class="unknown"></span></h1>
<p><span id="summary"></span> <span id="taken"></span></p>
</header>
<p class="banner" id="away" hidden></p>
<noscript><p class="banner">This page needs JavaScript; the command line says the same: ambient-cni status</p></noscript>
<h2>The node</h2>
${table("parts", ["part", "verdict", ""])}
<p>readiness: <span id="ready" class="unknown"></span></p>
<h2>Problems</h2>
${table("problems", ["object", "code", "what"])}
<h2>Pods <span class="quiet" id="pods-count"></span> <input id="filter" placeholder="filter" aria-label="filter pods"></h2>
${table("pods", ["pod", "addresses", "mesh", "engine", "ztunnel", "since", "why"])}
<h2>What became of connections</h2>
${table("verdicts", ["verdict", "since the start", "now", ""])}
<h2>Decisions</h2>
${table("decisions", ["time (UTC)", "pod", "what", "engine", "took", "why"])}
<script>${SCRIPT}</script>
</body>
</html>
`;

/** Of the page and of every document beside it. */
export const PAGE_HEADERS: Readonly<Record<string, string>> = {
  "Content-Security-Policy": [
    "default-src 'none'",
    `script-src '${digest(SCRIPT)}'`,
    `style-src '${digest(STYLE)}'`,
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; "),
  "X-Content-Type-Options": "nosniff",
  "X-Frame-Options": "DENY",
  "Referrer-Policy": "no-referrer",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cache-Control": "no-store",
};

/** Documents that the page asks for. */
export const PAGE_DOCUMENTS = ["status", "pods", "decisions", "readiness", "metrics"] as const;

function digest(text: string): string {
  return `sha256-${createHash("sha256").update(text).digest("base64")}`;
}
