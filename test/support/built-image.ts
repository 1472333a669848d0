// SPDX-License-Identifier: Apache-2.0
// The image that `npm run build:image` made, unpacked, and programs run in it.
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { ScratchDir } from "./scratch-dir.ts";

const REPOSITORY = resolve(import.meta.dirname, "../..");

export interface ImageFile {
  readonly path: string;
  /** As `ls -l` writes it: type and nine letters. */
  readonly mode: string;
  readonly owner: string;
  readonly target: string | undefined;
}

/**
 * What a container's runtime sets up and no more: a read-only root, /proc, an empty /dev with null, a
 * /run that may be written, namespaces of its own. $1 = root, rest = what to run.
 */
const ENTER = `
set -e
root=$1; shift
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev"
: > "$root/dev/null"; mount --bind /dev/null "$root/dev/null"
mount -t tmpfs tmpfs "$root/run"
exec chroot "$root" "$@"
`;

export class BuiltImage implements Disposable {
  readonly version: string = JSON.parse(readFileSync(`${REPOSITORY}/package.json`, "utf8")).version;
  /** Without its ending, what the builder wrote for this machine's architecture. */
  readonly base = `${REPOSITORY}/dist/image/ambient-cni-${this.version}-${process.arch}`;
  readonly archive = `${this.base}.oci.tar`;
  readonly config: {
    readonly config: { readonly Env: readonly string[]; readonly Cmd: readonly string[]; readonly User: string };
  };
  readonly root: string;
  /** Of all layers, each as it lies in its tar. */
  readonly files: readonly ImageFile[];
  /** Compressed, in bytes, as a node pulls them. */
  readonly layerSizes: readonly number[];
  readonly #dir = new ScratchDir();

  constructor() {
    const oci = this.#dir.file("oci");
    this.root = this.#dir.file("root");
    for (const path of [oci, this.root]) mkdirSync(path);
    execFileSync("tar", ["-xf", this.archive, "-C", oci]);
    const read = (path: string) => JSON.parse(readFileSync(`${oci}/${path}`, "utf8"));
    const blob = (digest: string) => `blobs/${digest.replace(":", "/")}`;
    const [top] = read("index.json").manifests;
    const manifest = read(blob(top.digest));
    this.config = read(blob(manifest.config.digest));
    const layers: { digest: string; size: number }[] = manifest.layers;
    this.layerSizes = layers.map(({ size }) => size);
    this.files = layers.flatMap(({ digest }) => listTar(`${oci}/${blob(digest)}`));
    for (const { digest } of layers) execFileSync("tar", ["-xpzf", `${oci}/${blob(digest)}`, "-C", this.root]);
  }

  /** Runs a program in the image, in a network of its own, with the image's environment and `env`. */
  run(argv: readonly string[], options: { readonly input?: string; readonly env?: Record<string, string> } = {}) {
    const given = Object.fromEntries(this.config.config.Env.map((pair) => pair.split(/=(.*)/s).slice(0, 2)));
    const { stdout, stderr, status, signal } = spawnSync(
      "unshare",
      ["--mount", "--net", "--pid", "--fork", "--kill-child=KILL", "sh", "-c", ENTER, "enter", this.root, ...argv],
      { encoding: "utf8", env: { ...given, ...options.env }, input: options.input ?? "", timeout: 30_000 },
    );
    return { stdout, stderr, status: status ?? signal };
  }

  [Symbol.dispose](): void {
    this.#dir[Symbol.dispose]();
  }
}

function listTar(file: string): ImageFile[] {
  const list = execFileSync("tar", ["--numeric-owner", "--quoting-style=literal", "-tvzf", file], { encoding: "utf8" });
  return list
    .trimEnd()
    .split("\n")
    .map((line) => {
      const [, mode = "", owner = "", name = ""] = /^(\S{10}) (\S+) +\d+ \S+ \S+ (.*)$/.exec(line) ?? [];
      const [path = "", target] = mode.startsWith("l") ? name.split(" -> ") : [name.replace(/\/$/, "")];
      return { path, mode, owner, target };
    });
}
