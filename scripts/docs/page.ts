// SPDX-License-Identifier: Apache-2.0
import { posix } from "node:path";
import GithubSlugger from "github-slugger";
import { Marked } from "marked";

/** One Markdown file of docs/, as the site shows it. */
export interface Page {
  /** Below docs/: `concepts/capture.md`. */
  readonly source: string;
  readonly title: string;
  readonly html: string;
  /** Anchors of its headings, as GitHub makes them. */
  readonly anchors: ReadonlySet<string>;
  readonly links: readonly Link[];
}

export interface Link {
  /** As it stands in the file. */
  readonly href: string;
  /** What it leads to, from the repository's root; undefined: elsewhere. */
  readonly path: string | undefined;
  readonly anchor: string | undefined;
}

export const DOCS = "docs";

/** Where a page of the site is, from its root. */
export const siteName = (source: string): string => source.replace(/\.md$/, ".html");

/**
 * Reads a page. Links between pages lead to pages of the site; those to other files of the repository, which a site
 * does not have, become their text. @throws Error for a page without a heading of the first order
 */
export function readPage(source: string, markdown: string): Page {
  const slugger = new GithubSlugger();
  const anchors = new Set<string>();
  const links: Link[] = [];
  const marked = new Marked({
    gfm: true,
    renderer: {
      heading({ tokens, depth }) {
        const text = this.parser.parseInline(tokens);
        const id = slugger.slug(plain(text));
        anchors.add(id);
        return `<h${depth} id="${id}">${text}<a class="anchor" href="#${id}" aria-label="Link to this section">#</a></h${depth}>\n`;
      },
      link({ href, tokens }) {
        const link = resolved(source, href);
        links.push(link);
        const text = this.parser.parseInline(tokens);
        const target = onSite(source, link);
        if (target !== undefined) return `<a href="${escaped(target)}">${text}</a>`;
        return `<span class="file" title="${escaped(link.path ?? "")} in the repository">${text}</span>`;
      },
      image({ href, text }) {
        links.push(resolved(source, href));
        return `<img src="${escaped(href)}" alt="${escaped(text)}">`;
      },
      table(token) {
        const cell = (one: (typeof token.header)[number]) => {
          const tag = one.header ? "th" : "td";
          const align = one.align === null ? "" : ` class="${one.align}"`;
          return `<${tag}${align}>${this.parser.parseInline(one.tokens)}</${tag}>`;
        };
        const row = (cells: typeof token.header) => `<tr>${cells.map(cell).join("")}</tr>\n`;
        const head = token.header.every(({ text }) => text === "") ? "" : `<thead>${row(token.header)}</thead>`;
        return `<div class="table"><table>${head}<tbody>${token.rows.map(row).join("")}</tbody></table></div>\n`;
      },
    },
  });
  const html = marked.parse(markdown, { async: false });
  const title = /<h1 id="[^"]*">(.*?)<a class="anchor"/.exec(html)?.[1];
  if (title === undefined) throw new Error(`${DOCS}/${source} has no heading of the first order`);
  return { source, title: plain(title), html, anchors, links };
}

function resolved(source: string, href: string): Link {
  if (/^[a-z]+:/.test(href)) return { href, path: undefined, anchor: undefined };
  const [file = "", anchor] = href.split("#");
  const own = posix.join(DOCS, source);
  return { href, path: file === "" ? own : posix.normalize(posix.join(posix.dirname(own), file)), anchor };
}

/** undefined: a file that the site does not have. */
function onSite(source: string, { href, path, anchor }: Link): string | undefined {
  if (path === undefined) return href;
  if (!path.startsWith(`${DOCS}/`) || !path.endsWith(".md")) return undefined;
  const target = siteName(path.slice(DOCS.length + 1));
  const relative = posix.relative(posix.dirname(source), target);
  return `${relative}${anchor === undefined ? "" : `#${anchor}`}`;
}

/** Text of a piece of HTML. */
function plain(html: string): string {
  return html
    .replace(/<[^>]+>/g, "")
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">")
    .replaceAll("&quot;", '"')
    .replaceAll("&#39;", "'")
    .replaceAll("&amp;", "&");
}

export function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}
