// SPDX-License-Identifier: Apache-2.0
// The texts that licences of npm packages want to go along with every copy.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

export interface LicenceText {
  /** Of the file in the image. */
  readonly name: string;
  readonly text: string;
}

/** The licence itself, word for word: https://spdx.org/licenses/MIT.html */
const MIT = `Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
`;

/**
 * The package's own files; where it has none, the notices at the head of its sources, or the licence that
 * package.json names with its author.
 * @throws Error for a package of which we could not say under what terms it may be passed on
 */
export function licenceTexts(folder: string, sources: readonly string[]): readonly LicenceText[] {
  const files = readdirSync(folder).filter((name) => /^(licen[cs]e|copying|notice)([.-].*)?$/i.test(name));
  if (files.length > 0) return files.sort().map((name) => ({ name, text: readFileSync(join(folder, name), "utf8") }));
  const notices = new Set(sources.map((file) => heading(readFileSync(file, "utf8"))));
  notices.delete("");
  if (notices.size > 0) return [{ name: "LICENSE", text: `${[...notices].sort().join("\n\n")}\n` }];
  const { license, author } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const holder = typeof author === "string" ? author : author?.name;
  if (license !== "MIT" || typeof holder !== "string")
    throw new Error(`${folder} brings no text of its licence (${license})`);
  return [{ name: "LICENSE", text: `Copyright (c) ${holder}\n\n${MIT}` }];
}

/** The line comments that a source begins with, if they are about copyright. */
function heading(source: string): string {
  const comment = /^(?:\/\/.*\n)+/.exec(source)?.[0] ?? "";
  return /copyright/i.test(comment) ? comment.replace(/^\/\/ ?/gm, "").trimEnd() : "";
}
