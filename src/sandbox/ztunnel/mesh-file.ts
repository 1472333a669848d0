// SPDX-License-Identifier: Apache-2.0
import { type FSWatcher, readFileSync, watch } from "node:fs";
import { basename, dirname } from "node:path";
import { messageOf } from "../../core/errors.ts";
import { Directory } from "./directory.ts";
import { type Journal, quoted } from "./journal.ts";
import { type Mesh, parseMesh } from "./mesh.ts";
import type { Settings } from "./settings.ts";

const SETTLE_MS = 30;
/** How long a connection waits for its workload to appear in the configuration (ztunnel's src/state.rs). */
export const WORKLOAD_WAIT_MS = 5000;

/**
 * The mesh configuration on disk. Unlike a real ztunnel, which reads LOCAL_XDS_PATH once, the stand-in
 * follows it: pods come and go while the sandbox runs. A file that can't be read leaves the last state.
 */
export class MeshFile {
  private current: { readonly mesh: Mesh; readonly directory: Directory };
  private readonly waiting = new Set<() => void>();
  private watcher: FSWatcher | undefined;
  private timer: NodeJS.Timeout | undefined;

  /** @throws Error when the file can't be read or is wrong. */
  constructor(
    private readonly settings: Settings,
    private readonly journal: Journal,
  ) {
    this.current = this.read();
    // The directory, because the file is replaced by rename.
    this.watcher = watch(dirname(settings.meshPath), (_event, name) => {
      if (name === null || name === basename(settings.meshPath)) this.settle();
    });
    this.watcher.on("error", (error) => {
      journal.log("warn", "state", "mesh configuration is no longer watched", { error: quoted(messageOf(error)) });
    });
  }

  get directory(): Directory {
    return this.current.directory;
  }

  get mesh(): Mesh {
    return this.current.mesh;
  }

  /** Asks again at every change until there is an answer, or `ms` have passed. */
  async find<T>(look: (directory: Directory) => T | undefined, ms: number = WORKLOAD_WAIT_MS): Promise<T | undefined> {
    const deadline = performance.now() + ms;
    for (;;) {
      const found = look(this.directory);
      if (found !== undefined) return found;
      const left = deadline - performance.now();
      if (left <= 0 || this.watcher === undefined) return undefined;
      await this.nextChange(left);
    }
  }

  close(): void {
    this.watcher?.close();
    this.watcher = undefined;
    clearTimeout(this.timer);
    this.wake();
  }

  private nextChange(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.waiting.delete(done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      this.waiting.add(done);
    });
  }

  private settle(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      try {
        this.current = this.read();
        this.journal.event({ event: "mesh read", workloads: this.mesh.workloads.length });
      } catch (error) {
        this.journal.log("warn", "state", "mesh configuration not read", { error: quoted(messageOf(error)) });
      }
      this.wake();
    }, SETTLE_MS);
  }

  private wake(): void {
    for (const done of [...this.waiting]) done();
  }

  private read(): { mesh: Mesh; directory: Directory } {
    const mesh = parseMesh(readFileSync(this.settings.meshPath, "utf8"));
    return { mesh, directory: new Directory(mesh, this.settings.network, this.settings.nodeName) };
  }
}
