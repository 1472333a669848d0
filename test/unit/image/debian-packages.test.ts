// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { type DebianPackage, parsePackages, renderPackages } from "../../../install/image/debian-packages.ts";

const HASH = "0123456789abcdef".repeat(4);

const PACKAGES: readonly DebianPackage[] = [
  { name: "libc6", version: "2.36-9+deb12u14", sha256: HASH, use: "image" },
  { name: "libgmp10", version: "2:6.2.1+dfsg1-1.1", sha256: HASH, use: "image" },
  { name: "libjansson-dev", version: "2.14-2", sha256: HASH, use: "static" },
  { name: "libstdc++-12-dev", version: "12.2.0-14+deb12u1", sha256: HASH, use: "build" },
];

test("the list of one build is read by the next, also of two architectures after each other", () => {
  const text = renderPackages("amd64", PACKAGES) + renderPackages("arm64", PACKAGES.slice(0, 1));
  expect(text.split("\n")[1]).toBe(`amd64 build libstdc++-12-dev 12.2.0-14+deb12u1 ${HASH}`);
  expect(parsePackages(text)).toEqual(
    new Map([
      ["amd64", PACKAGES],
      ["arm64", PACKAGES.slice(0, 1)],
    ]),
  );
});

test.each([
  ["too few words", `amd64 image libc6 ${HASH}`],
  ["an unknown use", `amd64 maybe libc6 2.36 ${HASH}`],
  ["an option for apt", `amd64 image --allow-unauthenticated 2.36 ${HASH}`],
  ["no hash", "amd64 image libc6 2.36 abc"],
  ["a shell's words", `amd64 image libc6 2.36;true ${HASH}`],
])("a line with %s is refused by its number", (_, line) => {
  expect(() => parsePackages(`# comment\n\n${line}\n`)).toThrow(/^line 3 is no "architecture use package/);
});

test("a package has one version", () => {
  const line = `amd64 image libc6 2.36 ${HASH}\n`;
  expect(() => parsePackages(line + line)).toThrow("line 2: libc6 comes twice");
});
