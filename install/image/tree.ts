// SPDX-License-Identifier: Apache-2.0
import { type Dirent, lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";

/** Bytes, or the file that holds them. */
export type Content = Uint8Array | { readonly file: string };

export type Entry =
  | { readonly type: "directory"; readonly path: string; readonly mode: number }
  | { readonly type: "file"; readonly path: string; readonly mode: number; readonly content: Content }
  | { readonly type: "symlink"; readonly path: string; readonly target: string };

/**
 * The files of a layer. Everything belongs to root; modes are 0755 and 0644, whatever the umask of who
 * builds: nothing setuid, nothing that others may write, unless it is asked for by name.
 */
export class Tree {
  readonly #entries = new Map<string, Entry>();

  /** @throws Error when the path is taken, or is no plain relative path. */
  add(entry: Entry): void {
    const parts = entry.path.split("/");
    if (parts.some((part) => part === "" || part === "." || part === "..") || entry.path.includes("\0")) {
      throw new Error(`not a path inside an image: ${JSON.stringify(entry.path)}`);
    }
    if (this.#entries.has(entry.path)) throw new Error(`twice in one layer: ${entry.path}`);
    this.#entries.set(entry.path, entry);
  }

  text(path: string, text: string): void {
    this.add({ type: "file", path, mode: 0o644, content: Buffer.from(text) });
  }

  file(path: string, source: string, mode = 0o644): void {
    this.add({ type: "file", path, mode, content: { file: source } });
  }

  symlink(path: string, target: string): void {
    this.add({ type: "symlink", path, target });
  }

  directory(path: string, mode = 0o755): void {
    this.add({ type: "directory", path, mode });
  }

  has(path: string): boolean {
    return this.#entries.has(path);
  }

  /** Sorted, with all directories above. */
  entries(): readonly Entry[] {
    const all = new Map(this.#entries);
    for (const path of this.#entries.keys()) {
      for (let slash = path.lastIndexOf("/"); slash > 0; slash = path.lastIndexOf("/", slash - 1)) {
        const parent = path.slice(0, slash);
        const known = all.get(parent);
        if (known === undefined) all.set(parent, { type: "directory", path: parent, mode: 0o755 });
        else if (known.type !== "directory") throw new Error(`${path} lies below ${parent}, which is a ${known.type}`);
      }
    }
    return [...all.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
  }
}

/** Files and symlinks below a folder, sorted, with paths relative to it. */
export function filesBelow(folder: string): { readonly path: string; readonly symlink: string | undefined }[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry: Dirent) => entry.isFile() || entry.isSymbolicLink())
    .map((entry) => {
      const full = join(entry.parentPath, entry.name);
      return {
        path: full.slice(folder.length + 1),
        symlink: entry.isSymbolicLink() ? readlinkSync(full) : undefined,
      };
    })
    .sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** 0755 where the owner may run it, else 0644. */
export function plainMode(file: string): number {
  return (lstatSync(file).mode & 0o100) === 0 ? 0o644 : 0o755;
}

export function bytesOf(content: Content): Uint8Array {
  return content instanceof Uint8Array ? content : readFileSync(content.file);
}
