// SPDX-License-Identifier: Apache-2.0
// The packages of Debian that an image is made of, and their exact versions as a text file.

/** What a package is for: its files are in the image, linked into a program of it, or only needed to compile. */
export type Use = "image" | "static" | "build";

export interface DebianPackage {
  readonly name: string;
  readonly version: string;
  readonly sha256: string;
  readonly use: Use;
}

/** Their dependencies come by themselves. */
export const RUNTIME: readonly string[] = [
  "base-files",
  "iptables",
  "libbpf1",
  "libc6",
  "libelf1",
  "libgcc-s1",
  "libstdc++6",
  "netbase",
  "nftables",
  "zlib1g",
];

/** Dependencies of maintainer scripts, which never run here. */
export const LEFT_OUT: ReadonlySet<string> = new Set(["mawk"]);

/** Only these, without dependencies. The static ones are parts of the CNI plugin. */
export const COMPILE: ReadonlyMap<string, Use> = new Map([
  ["libbpf-dev", "build"],
  ["libc6-dev", "static"],
  ["libgcc-12-dev", "static"],
  ["libjansson-dev", "static"],
  ["libstdc++-12-dev", "build"],
  ["linux-libc-dev", "build"],
]);

function isUse(word: string): word is Use {
  return word === "image" || word === "static" || word === "build";
}

const HEADING = "# architecture use package version sha256";
const LINE = /^([a-z0-9]+) (image|static|build) ([a-z0-9][a-z0-9+.-]+) ([A-Za-z0-9.+~:-]+) ([0-9a-f]{64})$/;

/** One line per package, for `build:image -- --packages`. */
export function renderPackages(architecture: string, packages: readonly DebianPackage[]): string {
  const lines = packages.map(({ use, name, version, sha256 }) => `${architecture} ${use} ${name} ${version} ${sha256}`);
  return `${[HEADING, ...lines.sort()].join("\n")}\n`;
}

/**
 * Reads what renderPackages wrote, several of them too: by architecture, sorted by name.
 * @throws Error that names the line
 */
export function parsePackages(text: string): Map<string, DebianPackage[]> {
  const packages = new Map<string, DebianPackage[]>();
  for (const [at, line] of text.split("\n").entries()) {
    if (line === "" || line.startsWith("#")) continue;
    const [, architecture = "", use = "", name = "", version = "", sha256 = ""] = LINE.exec(line) ?? [];
    if (!isUse(use)) {
      throw new Error(`line ${at + 1} is no "${HEADING.slice(2)}": ${JSON.stringify(line.slice(0, 200))}`);
    }
    const list = packages.get(architecture) ?? [];
    if (list.some((known) => known.name === name)) throw new Error(`line ${at + 1}: ${name} comes twice`);
    packages.set(
      architecture,
      [...list, { name, version, sha256, use }].sort((a, b) => (a.name < b.name ? -1 : 1)),
    );
  }
  return packages;
}
