// SPDX-License-Identifier: Apache-2.0
// Images of the tests: one static program each, in an archive as `docker save` writes it.
import { createHash } from "node:crypto";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { run } from "../../../src/sys/exec.ts";
import { ScratchDir } from "../scratch-dir.ts";

export const PAUSE_IMAGE = "localhost/pause:1";
/** Its programs are `/pod`'s commands. */
export const POD_IMAGE = "localhost/pod:1";

/** Compiles test/support/runtime/NAME.c and packs it; removed by `using`. */
export class TestImages implements Disposable {
  readonly #dir = new ScratchDir();
  /** Paths of the archives. */
  readonly archives: string[] = [];

  static async build(): Promise<TestImages> {
    const images = new TestImages();
    await Promise.all([images.#add("pause", PAUSE_IMAGE), images.#add("pod", POD_IMAGE)]);
    return images;
  }

  async #add(name: string, reference: string): Promise<void> {
    const source = join(import.meta.dirname, `${name}.c`);
    const work = this.#dir.file(name);
    mkdirSync(join(work, "root"), { recursive: true });
    const program = join(work, "root", name);
    const flags = ["-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE"];
    await run(["cc", ...flags, "-o", program, source], { timeoutMs: 60_000 });
    chmodSync(program, 0o755);
    await tar(join(work, "layer.tar"), join(work, "root"), [name]);
    const layer = createHash("sha256")
      .update(readFileSync(join(work, "layer.tar")))
      .digest("hex");
    const config = {
      architecture: process.arch === "x64" ? "amd64" : process.arch,
      os: "linux",
      config: { Entrypoint: [`/${name}`] },
      rootfs: { type: "layers", diff_ids: [`sha256:${layer}`] },
    };
    writeFileSync(join(work, "config.json"), JSON.stringify(config));
    const manifest = [{ Config: "config.json", RepoTags: [reference], Layers: ["layer.tar"] }];
    writeFileSync(join(work, "manifest.json"), JSON.stringify(manifest));
    const archive = this.#dir.file(`${name}.tar`);
    await tar(archive, work, ["manifest.json", "config.json", "layer.tar"]);
    this.archives.push(archive);
  }

  [Symbol.dispose](): void {
    this.#dir[Symbol.dispose]();
  }
}

async function tar(archive: string, directory: string, names: readonly string[]): Promise<void> {
  await run(["tar", "--owner=0", "--group=0", "-cf", archive, "-C", directory, ...names], { timeoutMs: 30_000 });
}
