// SPDX-License-Identifier: Apache-2.0
// The programs of ours in the image. clang compiles for any architecture; headers and libraries are those
// of the image's own Debian packages, so that nothing of the machine that builds gets in.
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ARCHES, type Arch } from "./arch.ts";
import type { Debian } from "./debian.ts";
import { NODE_VERSION, type NodePackage } from "./node-package.ts";
import { readNote, writeNote } from "./note.ts";
import { runProgram } from "./process.ts";

export interface Programs {
  readonly addon: string;
  readonly plugin: string;
  readonly launcher: string;
}

/** Compiles what is out of date, with the packages in `sysroot` and Node's uv.h. */
export async function compilePrograms(
  folder: string,
  arch: Arch,
  { sysroot, packages }: Debian,
  { headers }: NodePackage,
): Promise<Programs> {
  // The tools go by times, and the files of a newer package are older than what was compiled yesterday.
  const key = [packages.map(({ sha256 }) => sha256), NODE_VERSION, await runProgram(["clang", "--version"])];
  const note = join(folder, "made-with.json");
  if (readNote(note, key) === undefined) rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  writeNote(note, key, true);
  const programs = {
    addon: join(folder, "cmake", "Release", "ambient.node"),
    plugin: join(folder, "istio-cni"),
    launcher: join(folder, "launcher"),
  };
  const { triplet } = ARCHES[arch];
  const target = [`--target=${triplet}`, `--sysroot=${sysroot}`, "-fuse-ld=lld"];
  await Promise.all([
    compileAddon(folder, arch, sysroot, headers),
    runProgram(["scripts/build-plugin", "--out", programs.plugin, "--target", triplet, "--sysroot", sysroot]),
    runProgram([
      "clang",
      ...target,
      ...[
        "-std=c17",
        "-D_GNU_SOURCE",
        "-O2",
        "-g0",
        "-fPIE",
        "-pie",
        "-fstack-protector-strong",
        "-D_FORTIFY_SOURCE=2",
      ],
      ...["-Wall", "-Wextra", "-Werror", "-Wl,-z,relro,-z,now", "-s"],
      "install/image/launcher.c",
      ...["-o", programs.launcher],
    ]),
  ]);
  return programs;
}

async function compileAddon(folder: string, arch: Arch, sysroot: string, headers: string): Promise<void> {
  const { triplet, processor } = ARCHES[arch];
  const toolchain = join(folder, "toolchain.cmake");
  const text = `set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR ${processor})
set(CMAKE_SYSROOT "${sysroot}")
set(CMAKE_CXX_COMPILER clang++)
set(CMAKE_CXX_COMPILER_TARGET ${triplet})
set(CMAKE_SHARED_LINKER_FLAGS_INIT "-fuse-ld=lld -Wl,-z,relro,-z,now -s")
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
`;
  // cmake starts anew when it is newer.
  if (!existsSync(toolchain) || readFileSync(toolchain, "utf8") !== text) writeFileSync(toolchain, text);
  await runProgram([
    ...["npx", "--no-install", "cmake-js", "compile", "-O", join(folder, "cmake"), "--arch", arch],
    ...[`--CDCMAKE_TOOLCHAIN_FILE=${toolchain}`, `--CDUV_INCLUDE_DIR=${headers}`],
  ]);
}
