// SPDX-License-Identifier: Apache-2.0
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type Chapter, CONTENTS, FIRST } from "./contents.ts";
import { DOCS, type Page, readPage, siteName } from "./page.ts";
import { pageHtml, STYLE } from "./template.ts";

export interface Site {
  readonly pages: readonly Page[];
  /** Every file of the site, by its name from the site's root. */
  readonly files: ReadonlyMap<string, string | Buffer>;
}

/** Makes the site from docs/ of the repository at `root`. @throws Error that names a listed page that is missing */
export function makeSite(root: string): Site {
  const names = readdirSync(join(root, DOCS), { recursive: true, encoding: "utf8" }).sort();
  const sources = names.filter((name) => name.endsWith(".md"));
  const pages = new Map(
    sources.map((source) => [source, readPage(source, readFileSync(join(root, DOCS, source), "utf8"))]),
  );
  const chapters = complete(sources);
  const order = chapters.flatMap((chapter) => chapter.pages);
  const files = new Map<string, string | Buffer>([["style.css", STYLE]]);
  for (const [index, source] of order.entries()) {
    const page = pages.get(source);
    if (page === undefined) throw new Error(`the table of contents lists ${DOCS}/${source}, which is missing`);
    const around = [order[index - 1], order[index + 1]].map((name) =>
      name === undefined ? undefined : pages.get(name),
    );
    const html = pageHtml({ page, chapters, titles: titleOf, previous: around[0], next: around[1] });
    files.set(siteName(source), html);
    // Its links are as they would be at the root, where it is.
    if (source === FIRST) files.set("index.html", html);
  }
  for (const name of names.filter((name) => name.endsWith(".svg") || name.endsWith(".png"))) {
    files.set(name, readFileSync(join(root, DOCS, name)));
  }
  return { pages: [...pages.values()], files };

  function titleOf(source: string): string {
    return pages.get(source)?.title ?? source;
  }
}

function complete(sources: readonly string[]): Chapter[] {
  const listed = new Set(CONTENTS.flatMap(({ pages }) => pages));
  const decisions = sources.filter((source) => source.startsWith("adr/"));
  const rest = sources.filter((source) => !listed.has(source) && !source.startsWith("adr/"));
  return [
    ...CONTENTS,
    ...(rest.length === 0 ? [] : [{ title: "More", pages: rest }]),
    { title: "Decisions", pages: decisions },
  ];
}
