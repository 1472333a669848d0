// SPDX-License-Identifier: Apache-2.0
// npm run build:image: the container image without a container engine. docs/IMAGE.md says how and why.
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { messageOf } from "../../src/core/errors.ts";
import { ARCHES, type Arch, isArch } from "./arch.ts";
import { DEFAULT_MIRROR } from "./debian.ts";
import { type DebianPackage, parsePackages, renderPackages } from "./debian-packages.ts";
import { type BuiltImage, buildImage } from "./image.ts";
import { writeArchive } from "./oci.ts";
import { runProgram } from "./process.ts";

const USAGE = `usage: npm run build:image -- [options]
  --arch x64|arm64|all   what to build for (default: this machine's)
  --name REF             registry/repository:tag of the image (default: localhost/ambient-cni:VERSION)
  --out DIR              where the archives go (default: dist/image)
  --refresh              ask Debian for newer packages, also if an earlier build has left some
  --packages FILE        exactly these packages: the .packages file of another build; once for each architecture
  --mirror URL           Debian's mirror; {archive} stands for debian or debian-security
                         (default: ${DEFAULT_MIRROR})
SOURCE_DATE_EPOCH is the image's time; without it the commit's is.
`;

class UsageError extends Error {}

interface Options {
  readonly arches: readonly Arch[];
  readonly name: string;
  readonly out: string;
  readonly refresh: boolean;
  readonly mirror: string;
  readonly pinned: ReadonlyMap<string, readonly DebianPackage[]> | undefined;
}

function parseOptions(argv: readonly string[], version: string): Options {
  const text = { type: "string" } as const;
  const flag = { type: "boolean", default: false } as const;
  const packages = { type: "string", multiple: true } as const;
  const options = { arch: text, name: text, out: text, packages, mirror: text, refresh: flag, help: flag };
  let values: ReturnType<typeof parseArgs<{ options: typeof options }>>["values"];
  try {
    values = parseArgs({ args: [...argv], options }).values;
  } catch (error) {
    throw new UsageError(messageOf(error));
  }
  if (values.help) {
    process.stdout.write(USAGE);
    process.exit(0);
  }
  const arch = values.arch ?? process.arch;
  if (arch !== "all" && !isArch(arch)) throw new UsageError(`--arch is x64, arm64 or all, not ${JSON.stringify(arch)}`);
  const name = values.name ?? `localhost/ambient-cni:${version}`;
  if (!/^[a-z0-9.-]+(:[0-9]+)?(\/[a-z0-9._-]+)+:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/.test(name)) {
    throw new UsageError(`--name is registry/repository:tag, not ${JSON.stringify(name)}`);
  }
  const mirror = values.mirror ?? DEFAULT_MIRROR;
  if (!/^https?:\/\/[^\s{}]+\{archive\}[^\s{}]*$/.test(mirror)) {
    throw new UsageError(`--mirror is a URL with {archive} in it, not ${JSON.stringify(mirror)}`);
  }
  return {
    arches: arch === "all" ? ["x64", "arm64"] : [arch],
    name,
    out: values.out ?? "dist/image",
    refresh: values.refresh,
    mirror,
    pinned: values.packages === undefined ? undefined : readPackages(values.packages),
  };
}

function readPackages(files: readonly string[]): Map<string, DebianPackage[]> {
  try {
    return parsePackages(files.map((file) => readFileSync(file, "utf8")).join("\n"));
  } catch (error) {
    throw new UsageError(`--packages ${files.join(", ")}: ${messageOf(error)}`);
  }
}

/** When and what the sources are: SOURCE_DATE_EPOCH, else git, else nothing is said. */
async function origin(): Promise<{ readonly created: string | undefined; readonly revision: string | undefined }> {
  const git = (...argv: string[]) =>
    runProgram(["git", ...argv]).then(
      (text) => text.trim(),
      () => undefined,
    );
  const epoch = process.env.SOURCE_DATE_EPOCH ?? (await git("log", "-1", "--format=%ct"));
  if (epoch !== undefined && !/^\d{1,10}$/.test(epoch)) {
    throw new UsageError(`SOURCE_DATE_EPOCH is a number of seconds, not ${JSON.stringify(epoch)}`);
  }
  const commit = await git("rev-parse", "HEAD");
  const changed = (await git("status", "--porcelain")) !== "";
  return {
    created: epoch === undefined ? undefined : new Date(Number(epoch) * 1000).toISOString().replace(".000Z", "Z"),
    revision: commit === undefined ? undefined : `${commit}${changed ? "-dirty" : ""}`,
  };
}

const say = (text: string) => process.stdout.write(`${text}\n`);
const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;

/** Written beside and renamed: nobody reads half a file. */
function put(file: string, write: (path: string) => void): void {
  write(`${file}.tmp`);
  renameSync(`${file}.tmp`, file);
}

async function main(argv: readonly string[]): Promise<void> {
  const { version } = JSON.parse(readFileSync("package.json", "utf8"));
  const { arches, name, out, refresh, mirror, pinned } = parseOptions(argv, version);
  const source = await origin();
  mkdirSync(out, { recursive: true });
  const base = join(out, `ambient-cni-${version}`);
  const built = new Map<Arch, BuiltImage>();
  for (const arch of arches) {
    const packages = pinned?.get(ARCHES[arch].debian);
    if (pinned !== undefined && packages === undefined) throw new UsageError(`--packages has none for ${arch}`);
    const debian = { mirror, refresh, pinned: packages };
    const one = await buildImage(resolve("build/image", arch), arch, { version, ...source, debian, say });
    built.set(arch, one);
    put(`${base}-${arch}.cdx.json`, (path) => writeFileSync(path, one.sbom));
    put(`${base}-${arch}.packages`, (path) =>
      writeFileSync(path, renderPackages(ARCHES[arch].debian, one.debian.packages)),
    );
    archive(`${base}-${arch}.oci.tar`, name, [one]);
  }
  if (built.size > 1) archive(`${base}.oci.tar`, name, [...built.values()]);
}

function archive(file: string, name: string, images: readonly BuiltImage[]): void {
  put(file, (path) => {
    const { size, digest } = writeArchive(
      path,
      name,
      images.map(({ image }) => image),
    );
    say(`${file}: ${megabytes(size)}, ${name}, ${digest}`);
  });
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  const usage = error instanceof UsageError;
  process.stderr.write(`build:image: ${messageOf(error)}\n`);
  if (error instanceof Error && error.cause !== undefined) process.stderr.write(`${messageOf(error.cause)}\n`);
  process.exitCode = usage ? 2 : 1;
}
