// SPDX-License-Identifier: Apache-2.0

/** Debian's short names (https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/) as SPDX has them. */
const SPDX: Readonly<Record<string, string>> = {
  "Apache-2": "Apache-2.0",
  "Apache-2.0": "Apache-2.0",
  Artistic: "Artistic-1.0-Perl",
  "Artistic-2": "Artistic-2.0",
  "BSD-2": "BSD-2-Clause",
  "BSD-2-clause": "BSD-2-Clause",
  "BSD-3": "BSD-3-Clause",
  "BSD-3-clause": "BSD-3-Clause",
  Expat: "MIT",
  "GPL-2": "GPL-2.0-only",
  "GPL-2+": "GPL-2.0-or-later",
  "GPL-3": "GPL-3.0-only",
  "GPL-3+": "GPL-3.0-or-later",
  ISC: "ISC",
  "LGPL-2+": "LGPL-2.0-or-later",
  "LGPL-2.1": "LGPL-2.1-only",
  "LGPL-2.1+": "LGPL-2.1-or-later",
  "LGPL-3": "LGPL-3.0-only",
  "LGPL-3+": "LGPL-3.0-or-later",
  MIT: "MIT",
  Zlib: "Zlib",
  zlib: "Zlib",
};

/** A licence as CycloneDX names it. */
export type Licence = { readonly license: { readonly id: string } | { readonly name: string } };

/** The licences that a machine-readable copyright file of Debian names, sorted; none where it is prose. */
export function debianLicences(copyright: string): readonly Licence[] {
  if (!/^Format:\s*https?:\/\/\S*copyright-format/m.test(copyright)) return [];
  const names = [...copyright.matchAll(/^License:[ \t]*(\S.*)$/gm)].flatMap(([, text = ""]) =>
    text
      .split(/\s+(?:or|and)\s+|,\s*/i)
      .map((name) => name.trim())
      .filter((name) => name !== ""),
  );
  return [...new Set(names)].sort().map((name) => {
    const id = SPDX[name];
    return { license: id === undefined ? { name } : { id } };
  });
}
