// SPDX-License-Identifier: Apache-2.0
// Fetches and unpacks Debian packages of any architecture as any user: apt with directories of its own.
// None of the packages' scripts run.
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ARCHES, type Arch } from "./arch.ts";
import { COMPILE, type DebianPackage, LEFT_OUT, RUNTIME, type Use } from "./debian-packages.ts";
import { readNote, writeNote } from "./note.ts";
import { runProgram } from "./process.ts";

/** The newest whose nft writes rules that every older nft reads. */
const RELEASE = "bookworm";
const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";
/** `{archive}` is debian or debian-security. */
export const DEFAULT_MIRROR = "http://deb.debian.org/{archive}";

export interface DebianOptions {
  readonly mirror: string;
  /** Exactly these versions, in place of Debian's newest. */
  readonly pinned: readonly DebianPackage[] | undefined;
  /** Asks Debian again, also where an earlier run has left packages. */
  readonly refresh: boolean;
}

export interface UnpackedPackage extends DebianPackage {
  /** Its entry for dpkg's database. */
  readonly control: string;
}

export interface Debian {
  readonly packages: readonly UnpackedPackage[];
  /** Files of the packages that are in the image, as Debian lays them out (/lib and /usr/lib apart). */
  readonly root: string;
  /** All files, for the compiler. */
  readonly sysroot: string;
  /** False: from an earlier run. */
  readonly fetched: boolean;
}

/**
 * The packages of one architecture, unpacked below `folder`. Debian's signature vouches for them.
 * @throws Error with apt's reason; or naming a package that is not the pinned one
 */
export async function unpackDebian(folder: string, arch: Arch, options: DebianOptions): Promise<Debian> {
  const places = { root: join(folder, "root"), sysroot: join(folder, "sysroot") };
  const { mirror, pinned, refresh } = options;
  const key = [RELEASE, RUNTIME, [...LEFT_OUT], [...COMPILE], mirror, pinned ?? null];
  const known = refresh ? undefined : readNote<readonly UnpackedPackage[]>(join(folder, NOTE), key);
  if (known !== undefined) return { ...places, packages: known, fetched: false };

  // What is there stays until all of the new is there too.
  const fresh = `${folder}.new`;
  rmSync(fresh, { recursive: true, force: true });
  const packages = await unpackInto(fresh, arch, options);
  writeNote(join(fresh, NOTE), key, packages);
  rmSync(folder, { recursive: true, force: true });
  renameSync(fresh, folder);
  return { ...places, packages, fetched: true };
}

const NOTE = "packages.json";

async function unpackInto(folder: string, arch: Arch, options: DebianOptions): Promise<readonly UnpackedPackage[]> {
  const root = join(folder, "root");
  const sysroot = join(folder, "sysroot");
  const debs = join(folder, "debs");
  const own = join(folder, "apt");
  for (const path of [root, sysroot, debs]) mkdirSync(path, { recursive: true });
  const apt = await configureApt(own, arch, options);
  // Without it apt goes on with what could be had, such as everything but the security updates.
  await apt(["update", "-qq", "--error-on=any"]);
  const chosen = options.pinned ?? (await resolve(apt));
  const lost = [...RUNTIME, ...COMPILE.keys()].filter((name) => !chosen.some((choice) => choice.name === name));
  if (lost.length > 0) throw new Error(`not among the packages: ${lost.join(", ")}`);
  await download(apt, debs, chosen);

  const packages: UnpackedPackage[] = [];
  for (const name of readdirSync(debs).sort()) {
    const deb = join(debs, name);
    const identity = await identify(deb, chosen);
    packages.push({ ...identity, control: await runProgram(["dpkg-deb", "-f", deb]) });
    await runProgram(["dpkg-deb", "-x", deb, sysroot]);
    if (identity.use === "image") await runProgram(["dpkg-deb", "-x", deb, root]);
  }
  for (const path of [debs, own]) rmSync(path, { recursive: true });
  return packages;
}

type Apt = (argv: readonly string[], cwd?: string) => Promise<string>;

async function configureApt(folder: string, arch: Arch, { mirror, pinned }: DebianOptions): Promise<Apt> {
  for (const path of ["lists/partial", "archives/partial", "none"]) mkdirSync(join(folder, path), { recursive: true });
  // The Release files of an old snapshot are past their date; what is pinned is known by its hash.
  const flags = `signed-by=${KEYRING}${pinned === undefined ? "" : " check-valid-until=no"}`;
  const sources = [
    ["debian", RELEASE],
    ["debian", `${RELEASE}-updates`],
    ["debian-security", `${RELEASE}-security`],
  ].map(([archive = "", suite]) => `deb [${flags}] ${mirror.replace("{archive}", archive)} ${suite} main\n`);
  writeFileSync(join(folder, "sources.list"), sources.join(""));
  writeFileSync(join(folder, "status"), "");
  const { debian } = ARCHES[arch];
  const settings = {
    "Dir::State": folder,
    "Dir::State::status": join(folder, "status"),
    "Dir::State::lists": join(folder, "lists"),
    "Dir::Cache": folder,
    "Dir::Cache::archives": join(folder, "archives"),
    "Dir::Cache::pkgcache": "",
    "Dir::Cache::srcpkgcache": "",
    "Dir::Etc::sourcelist": join(folder, "sources.list"),
    "Dir::Etc::sourceparts": join(folder, "none"),
    "Dir::Etc::preferences": "/dev/null",
    "Dir::Etc::preferencesparts": join(folder, "none"),
    "APT::Architecture": debian,
    "APT::Install-Recommends": "false",
    "Acquire::Languages": "none",
    "Acquire::Retries": "3",
    // apt as root becomes _apt, who can't write to a checkout.
    "APT::Sandbox::User": "root",
  };
  const text = Object.entries(settings).map(([name, value]) => `${name} ${JSON.stringify(value)};\n`);
  // The machine's own settings stay in force (proxies), but not its hooks.
  const cleared = ["APT::Architectures", "APT::Update::Post-Invoke", "APT::Update::Post-Invoke-Success"];
  const config = join(folder, "apt.conf");
  writeFileSync(config, `${cleared.map((name) => `#clear ${name};\n`).join("")}${text.join("")}`);
  return (argv, cwd) => runProgram(["apt-get", "-c", config, ...argv], cwd === undefined ? {} : { cwd });
}

type Choice = Pick<DebianPackage, "name" | "version" | "use"> & { readonly sha256?: string };

/** The newest versions, with dependencies, as apt would install them on an empty system. */
async function resolve(apt: Apt): Promise<readonly Choice[]> {
  const closure = await apt(["install", "--yes", "--print-uris", "-qq", ...RUNTIME]);
  const runtime = closure.match(/(?<=^'[^']*' )\S+\.deb/gm) ?? [];
  if (runtime.length < RUNTIME.length) throw new Error(`apt names too few packages:\n${closure}`);
  const compile = await apt(["download", "--print-uris", "-qq", ...COMPILE.keys()]);
  return [...runtime, ...(compile.match(/(?<=^'[^']*' )\S+\.deb/gm) ?? [])].flatMap((file) => {
    const [name = "", version = ""] = file.split("_");
    if (LEFT_OUT.has(name)) return [];
    const use: Use = COMPILE.get(name) ?? "image";
    return [{ name, version: decodeURIComponent(version), use }];
  });
}

async function download(apt: Apt, debs: string, chosen: readonly Choice[]): Promise<void> {
  try {
    await apt(["download", "-qq", ...chosen.map(({ name, version }) => `${name}=${version}`)], debs);
  } catch (error) {
    throw new Error(
      "these versions of Debian's packages can't be had: where they are pinned and Debian has moved on, name a snapshot " +
        "with --mirror 'http://snapshot.debian.org/archive/{archive}/DATE'",
      { cause: error },
    );
  }
}

async function identify(deb: string, chosen: readonly Choice[]): Promise<DebianPackage> {
  const name = (await runProgram(["dpkg-deb", "-f", deb, "Package"])).trim();
  const choice = chosen.find((one) => one.name === name);
  if (choice === undefined) throw new Error(`apt brought ${name}, which was not asked for`);
  const sha256 = createHash("sha256").update(readFileSync(deb)).digest("hex");
  if (choice.sha256 !== undefined && choice.sha256 !== sha256) {
    throw new Error(`${name} ${choice.version} is another file than the pinned one: ${sha256}, not ${choice.sha256}`);
  }
  return { name, version: choice.version, sha256, use: choice.use };
}
