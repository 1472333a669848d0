// SPDX-License-Identifier: Apache-2.0

/** A processor that images are built for, under Node's name for it. */
export type Arch = "x64" | "arm64";

/** What everybody else calls it. */
export interface ArchNames {
  readonly debian: string;
  /** Target of compilers and directory of libraries. */
  readonly triplet: string;
  /** CMAKE_SYSTEM_PROCESSOR. */
  readonly processor: string;
  readonly oci: { readonly architecture: string; readonly variant?: string };
}

export const ARCHES: Readonly<Record<Arch, ArchNames>> = {
  x64: {
    debian: "amd64",
    triplet: "x86_64-linux-gnu",
    processor: "x86_64",
    oci: { architecture: "amd64" },
  },
  arm64: {
    debian: "arm64",
    triplet: "aarch64-linux-gnu",
    processor: "aarch64",
    oci: { architecture: "arm64", variant: "v8" },
  },
};

export function isArch(name: string): name is Arch {
  return Object.hasOwn(ARCHES, name);
}
