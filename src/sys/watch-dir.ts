// SPDX-License-Identifier: Apache-2.0
import { type FSWatcher, watch } from "node:fs";
import { stat } from "node:fs/promises";
import { dirname } from "node:path";
import { codeOf, messageOf } from "../core/errors.ts";

/**
 * Tells that something in a directory may have changed: a file in it or the directory itself, which may
 * come, go and be replaced. While there is none, its nearest ancestor is watched in its place. inotify
 * sees what a path meant when the watch began, so the owner calls `refresh` after each call and now and
 * then (a symbolic link may lead elsewhere by now).
 */
export class DirectoryWatch {
  private watcher: FSWatcher | undefined;
  /** Device and inode of what is watched. */
  private watched: string | undefined;
  private closed = false;

  constructor(
    private readonly path: string,
    private readonly changed: () => void,
  ) {}

  /**
   * Watches what is at the path now. What happens from its return on is told; look at the directory
   * after it, not before. Returns why nothing is watched (the node's inotify limits, mostly), or undefined.
   */
  async refresh(): Promise<string | undefined> {
    try {
      // Again after each new watch: the directory may have come while its ancestor was being looked at.
      for (;;) {
        const there = await nearest(this.path);
        if (this.closed || there.id === this.watched) return undefined;
        this.begin(there.path, there.id);
      }
    } catch (error) {
      this.end();
      return messageOf(error);
    }
  }

  close(): void {
    this.closed = true;
    this.end();
  }

  private begin(path: string, id: string): void {
    this.end();
    const watcher = watch(path, { persistent: false }, () => this.changed());
    watcher.on("error", () => {
      if (this.watcher !== watcher) return;
      this.end();
      this.changed();
    });
    this.watcher = watcher;
    this.watched = id;
  }

  private end(): void {
    this.watcher?.close();
    this.watcher = undefined;
    this.watched = undefined;
  }
}

async function nearest(path: string): Promise<{ path: string; id: string }> {
  for (let at = path; ; at = dirname(at)) {
    try {
      const { dev, ino } = await stat(at);
      return { path: at, id: `${at} ${dev}:${ino}` };
    } catch (error) {
      const absent = ["ENOENT", "ENOTDIR", "ELOOP"].includes(codeOf(error));
      if (!absent || at === dirname(at)) throw error;
    }
  }
}
