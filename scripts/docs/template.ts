// SPDX-License-Identifier: Apache-2.0
import { posix } from "node:path";
import type { Chapter } from "./contents.ts";
import { escaped, type Page, siteName } from "./page.ts";

export interface PageContext {
  readonly page: Page;
  readonly chapters: readonly Chapter[];
  readonly titles: (source: string) => string;
  readonly previous: Page | undefined;
  readonly next: Page | undefined;
}

/** One page of the site: contents at the side, no script, nothing from elsewhere. */
export function pageHtml({ page, chapters, titles, previous, next }: PageContext): string {
  const to = (name: string) => posix.relative(posix.dirname(page.source), name);
  const entry = (source: string) => {
    const here = source === page.source ? ' aria-current="page"' : "";
    return `<li><a href="${escaped(to(siteName(source)))}"${here}>${escaped(titles(source))}</a></li>`;
  };
  const contents = chapters.map(
    ({ title, pages }) => `<h2>${escaped(title)}</h2>\n<ul>${pages.map(entry).join("\n")}</ul>`,
  );
  const turn = (other: Page | undefined, sign: string, rel: string) =>
    other === undefined
      ? "<span></span>"
      : `<a rel="${rel}" href="${escaped(to(siteName(other.source)))}">${sign} ${escaped(other.title)}</a>`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(page.title)} - ambient-cni</title>
<link rel="stylesheet" href="${to("style.css")}">
</head>
<body>
<nav aria-label="Contents">
<p class="name"><a href="${to("index.html")}">ambient-cni</a></p>
${contents.join("\n")}
</nav>
<main>
${page.html}
<footer>${turn(previous, "&larr;", "prev")}${turn(next, "&rarr;", "next")}</footer>
</main>
</body>
</html>
`;
}

export const STYLE = `:root {
  color-scheme: light dark;
  --text: light-dark(#1c2430, #dfe5ec);
  --soft: light-dark(#5b6675, #98a4b3);
  --page: light-dark(#ffffff, #12171e);
  --side: light-dark(#f4f6f8, #181e27);
  --line: light-dark(#dde2e8, #2b3440);
  --link: light-dark(#0b62b8, #6db3f2);
}
* { box-sizing: border-box; }
body {
  margin: 0; display: grid; grid-template-columns: 17rem minmax(0, 1fr);
  font: 16px/1.55 system-ui, sans-serif; color: var(--text); background: var(--page);
}
nav { background: var(--side); border-right: 1px solid var(--line); padding: 1rem 1.2rem; height: 100vh; overflow-y: auto; position: sticky; top: 0; font-size: .9rem; }
nav h2 { font-size: .78rem; letter-spacing: .05em; text-transform: uppercase; color: var(--soft); margin: 1.2rem 0 .3rem; }
nav ul { list-style: none; margin: 0; padding: 0; }
nav li a { display: block; padding: .15rem 0; color: inherit; }
nav a[aria-current] { font-weight: 600; color: var(--link); }
.name { font-weight: 700; font-size: 1.1rem; margin: 0; }
.name a { color: inherit; }
main { padding: 1.5rem 2.5rem 4rem; max-width: 62rem; min-width: 0; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
h1, h2, h3 { line-height: 1.25; margin: 1.8em 0 .5em; }
h1 { margin-top: .2em; font-size: 1.9rem; }
.anchor { margin-left: .4em; color: var(--line); }
pre { background: var(--side); border: 1px solid var(--line); border-radius: 6px; padding: .8rem 1rem; overflow-x: auto; font-size: .82rem; line-height: 1.45; }
code { font-family: ui-monospace, monospace; font-size: .9em; }
:not(pre) > code { background: var(--side); padding: .1em .3em; border-radius: 4px; overflow-wrap: anywhere; }
.file { border-bottom: 1px dotted var(--soft); }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { border: 1px solid var(--line); padding: .35rem .6rem; text-align: left; vertical-align: top; }
td.right, th.right { text-align: right; }
img { max-width: 100%; height: auto; background: #ffffff; border-radius: 6px; }
footer { display: flex; justify-content: space-between; gap: 1rem; margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 1rem; }
@media (max-width: 50rem) {
  body { display: block; }
  nav { height: auto; position: static; border-right: 0; border-bottom: 1px solid var(--line); }
  main { padding: 1rem 1.2rem 3rem; }
}
`;
