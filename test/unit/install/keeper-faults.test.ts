// SPDX-License-Identifier: Apache-2.0
// While other programs write, rename and remove what the keeper keeps, every call of it to the file system fails once
// or is its last, and no event tells it of anything: it gets on by itself, and whoever follows it finishes.
import { EventEmitter } from "node:events";
import fs, { readdirSync, readFileSync, renameSync, statSync, unlinkSync, writeFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import timers from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Keeper } from "../../../install/keeper.ts";
import type { Clock } from "../../../src/core/clock.ts";
import { messageOf } from "../../../src/core/errors.ts";
import { CniNode, fixture } from "../../support/cni-node.ts";
import { FILE_FAULTS, type FileFault, FileFaults } from "../../support/faulty-files.ts";
import { runtimeView } from "../../support/runtime-view.ts";

const CALICO = fixture("10-calico.conflist").toString("latin1");
const NEWER = CALICO.replace("info", "debug");
const CILIUM = fixture("05-cilium.conflist").toString("latin1");
const MULTUS = fixture("00-multus.conf").toString("latin1");

/** For which it is at once whatever time the next thing waits for. */
class HastyClock implements Clock {
  #now = 0;
  readonly #tasks = new Map<() => void, number>();

  now(): number {
    return this.#now;
  }

  after(ms: number, task: () => void): () => void {
    this.#tasks.set(task, this.#now + ms);
    setImmediate(() => this.#next());
    return () => this.#tasks.delete(task);
  }

  #next(): void {
    const [first] = [...this.#tasks].sort(([, a], [, b]) => a - b);
    if (first === undefined) return;
    const [task, at] = first;
    this.#tasks.delete(task);
    this.#now = Math.max(this.#now, at);
    task();
  }
}

const { setTimeout } = timers;
const { watch } = fs;
beforeAll(() => {
  Object.assign(timers, { setTimeout: () => Promise.resolve() });
  Object.assign(fs, { watch: () => Object.assign(new EventEmitter(), { close: () => undefined }) });
  syncBuiltinESMExports();
});
afterAll(() => {
  Object.assign(timers, { setTimeout });
  Object.assign(fs, { watch });
  syncBuiltinESMExports();
});

interface Deed {
  readonly files: Readonly<Record<string, string>>;
  /** What others do, when all is as it should be; without it the keeper begins with these files. */
  readonly done?: (node: CniNode) => void;
  readonly missing?: string;
}

const PRIMARY = { "10-calico.conflist": CALICO, "20-other.conflist": CILIUM };

const DEEDS: Readonly<Record<string, Deed>> = {
  "it installs beside a list": { files: PRIMARY },
  "it installs beside a .conf": { files: { ...PRIMARY, "00-multus.conf": MULTUS } },
  "the primary is written anew": { files: PRIMARY, done: (node) => node.write("10-calico.conflist", NEWER) },
  "the primary is replaced": {
    files: PRIMARY,
    done: (node) => {
      node.write(".new", NEWER, 0o600);
      renameSync(node.conf(".new"), node.conf("10-calico.conflist"));
    },
  },
  "the primary is renamed by Cilium": {
    files: { "10-calico.conflist": CALICO },
    done: (node) => {
      node.write("05-cilium.conflist", CILIUM);
      renameSync(node.conf("10-calico.conflist"), node.conf("10-calico.conflist.cilium_bak"));
    },
  },
  "the only primary is removed": {
    files: { "10-calico.conflist": CALICO },
    done: (node) => unlinkSync(node.conf("10-calico.conflist")),
    missing: "no CNI configuration to chain into",
  },
  "the plugin is removed and upstream's kubeconfig comes": {
    files: PRIMARY,
    done: (node) => {
      unlinkSync(node.binary);
      writeFileSync(node.dir.file("run/istio-cni-kubeconfig"), "token");
    },
  },
};

const view = (node: CniNode) => JSON.stringify(runtimeView(node.netDir)?.plugins);

function snapshot(node: CniNode): string {
  const files = ["net.d", "bin", "run"].flatMap((directory) =>
    readdirSync(node.dir.file(directory))
      .sort()
      .map((name) => node.dir.file(`${directory}/${name}`)),
  );
  return files
    .map((path) => `${path.slice(node.dir.file("").length)} ${statSync(path).mode} ${readFileSync(path)}`)
    .join("\n");
}

class Kept {
  readonly node = new CniNode();
  readonly keeper: Keeper;

  constructor(private readonly deed: Deed) {
    const { logger, metrics, drift } = this.node;
    for (const [name, text] of Object.entries(deed.files)) this.node.write(name, text, 0o640);
    this.keeper = new Keeper({ installer: this.node.installer(), clock: new HastyClock(), logger, metrics, drift });
  }

  async settled(): Promise<void> {
    if (this.deed.done === undefined) return;
    this.keeper.start();
    await this.until(() => this.keeper.missing() === undefined);
  }

  begin(): void {
    if (this.deed.done === undefined) this.keeper.start();
    else this.deed.done(this.node);
  }

  async end(until: () => boolean): Promise<void> {
    await this.until(until);
    await this.keeper.stop();
  }

  right(wanted: string): boolean {
    const missing = this.keeper.missing();
    const isTold =
      this.deed.missing === undefined ? missing === undefined : missing?.includes(this.deed.missing) === true;
    return isTold && snapshot(this.node) === wanted;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.keeper.stop();
    this.node[Symbol.dispose]();
  }

  private async until(holds: () => boolean): Promise<void> {
    await expect.poll(holds, { interval: 1, timeout: 20_000 }).toBe(true);
  }
}

/** The state in the end, and what runtimes may see on the way there. */
async function without(deed: Deed): Promise<{ wanted: string; views: (string | undefined)[] }> {
  await using kept = new Kept(deed);
  await kept.settled();
  const views = [view(kept.node)];
  kept.begin();
  views.push(view(kept.node));
  await kept.end(() => kept.right(snapshot(kept.node)));
  // The keeper may have thought so before it looked again.
  if (deed.missing === undefined) await kept.node.installer().install();
  views.push(view(kept.node));
  return { wanted: snapshot(kept.node), views };
}

async function expectEverywhere(fault: FileFault, deed: Deed): Promise<void> {
  const { wanted, views } = await without(deed);
  for (let calls = 0; ; calls++) {
    await using kept = new Kept(deed);
    const { node } = kept;
    await kept.settled();
    const faults = new FileFaults(node.dir.file(""), () => expect(views).toContain(view(node)));
    const dead = () => fault === "killed" && faults.unmade !== undefined;
    try {
      const { unmade } = await faults.during(fault, calls, async () => {
        faults.apart(() => kept.begin());
        await kept.end(() => dead() || faults.apart(() => kept.right(wanted)));
      });
      if (fault === "killed")
        await node
          .installer()
          .install()
          .catch(() => undefined);
      else for (const { level, fields } of node.logger.lines) if (level === "warn") expectTold(fields, node);
      expect(snapshot(node)).toBe(wanted);
      if (unmade === undefined) return;
    } catch (error) {
      throw new Error(`after ${calls} calls, at ${faults.unmade}: ${messageOf(error)}`, { cause: error });
    }
  }
}

function expectTold(fields: Readonly<Record<string, unknown>>, node: CniNode): void {
  if (fields.error === undefined) return;
  expect(fields.error).toContain(node.dir.file(""));
  if (fields.code !== undefined) expect(fields.remedy).toMatch(/\w/);
}

describe.each(FILE_FAULTS)("%s", (fault) => {
  it.each(Object.entries(DEEDS))("while %s", async (_name, deed) => {
    await expectEverywhere(fault, deed);
  });
});
