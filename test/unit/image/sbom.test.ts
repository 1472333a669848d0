// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { debianLicences } from "../../../install/image/licences.ts";
import { renderSbom } from "../../../install/image/sbom.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

const FORMAT = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n";

test("licences of a machine-readable copyright file, by their SPDX names", () => {
  const text = `${FORMAT}\nFiles: *\nLicense: GPL-2+\n\nFiles: a\nLicense: Expat or BSD-3-clause\n\nLicense: GPL-2+\n On Debian ...\nLicense: Own-Words\n`;
  expect(debianLicences(text)).toEqual([
    { license: { id: "BSD-3-Clause" } },
    { license: { id: "MIT" } },
    { license: { id: "GPL-2.0-or-later" } },
    { license: { name: "Own-Words" } },
  ]);
  expect(debianLicences("This is prose.\nLicense: maybe GPL\n")).toEqual([]);
});

test("all that is in the image is listed, what only compiled it is not, and the bytes are always the same", () => {
  using dir = new ScratchDir();
  mkdirSync(dir.file("usr/share/doc/libjansson-dev"), { recursive: true });
  writeFileSync(dir.file("usr/share/doc/libjansson-dev/copyright"), `${FORMAT}\nFiles: *\nLicense: Expat\n`);
  const found = (name: string, version: string, use: "image" | "static" | "build", source: string) => {
    const control = `Package: ${name}\n${source}Version: ${version}\nArchitecture: arm64\n`;
    return { name, version, use, sha256: "ab".repeat(32), control };
  };
  const contents = {
    version: "1.2.3",
    arch: "arm64" as const,
    debian: {
      packages: [
        found("libstdc++6", "12.2.0-14+deb12u1", "image", "Source: gcc-12\n"),
        found("libjansson-dev", "2.14-2", "static", "Source: jansson\n"),
        found("linux-libc-dev", "6.1.1-1", "build", ""),
        found("libmnl0", "1.0.4-3", "image", ""),
      ],
      root: dir.path,
      sysroot: dir.path,
      fetched: true,
    },
    npm: [
      { name: "@scope/one", version: "1.0.0", licence: "MIT", texts: [] },
      { name: "two", version: "2.0.0", licence: "(MIT OR Apache-2.0)", texts: [] },
    ],
  };
  const text = renderSbom(contents);
  const packages = [...contents.debian.packages].reverse();
  expect(renderSbom({ ...contents, debian: { ...contents.debian, packages }, npm: [...contents.npm].reverse() })).toBe(
    text,
  );
  const { components, metadata, specVersion } = JSON.parse(text);
  expect(specVersion).toBe("1.5");
  expect(metadata.component).toMatchObject({ name: "ambient-cni", version: "1.2.3" });
  const deb = (name: string, version: string) => `pkg:deb/debian/${name}@${version}?arch=arm64&distro=debian-12`;
  const purls = components.map(({ purl }: { purl: string }) => purl);
  expect(purls).toEqual([
    deb("libjansson-dev", "2.14-2"),
    deb("libmnl0", "1.0.4-3"),
    deb("libstdc%2B%2B6", "12.2.0-14%2Bdeb12u1"),
    expect.stringMatching(/^pkg:generic\/node@\d+\.\d+\.\d+$/),
    "pkg:npm/%40scope/one@1.0.0",
    "pkg:npm/two@2.0.0",
  ]);
  expect(components[0]).toMatchObject({
    licenses: [{ license: { id: "MIT" } }],
    properties: [
      { name: "ambient-cni:source-package", value: "jansson" },
      { name: "ambient-cni:linked-into", value: "/opt/cni/bin/istio-cni" },
    ],
  });
  expect(components[5].licenses).toEqual([{ expression: "(MIT OR Apache-2.0)" }]);
});
