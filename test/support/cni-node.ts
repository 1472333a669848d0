// SPDX-License-Identifier: Apache-2.0
// The directories of a node and of an image, and what installs from one to the other.
import { chmodSync, chownSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Installer, type InstallerConfig } from "../../install/installer.ts";
import { Keeper } from "../../install/keeper.ts";
import { systemClock } from "../../src/core/clock.ts";
import { DriftLedger } from "../../src/telemetry/drift-ledger.ts";
import { LogRecorder, MetricRecorder } from "./recorder.ts";
import { ScratchDir } from "./scratch-dir.ts";

const FIXTURES = join(import.meta.dirname, "../fixtures/conflist");
export const fixture = (name: string): Buffer => readFileSync(join(FIXTURES, name));
export const ENTRY = JSON.parse(fixture("entry.json").toString());
export const PLUGIN = "the plugin";

export class CniNode implements Disposable {
  readonly dir: ScratchDir;
  readonly logger = new LogRecorder();
  readonly metrics = new MetricRecorder();
  readonly drift = new DriftLedger(this.metrics);

  /** In memory, unless something else is asked for: what fsync does has tests of its own. */
  constructor(parent = "/dev/shm") {
    this.dir = new ScratchDir(parent);
    for (const name of ["net.d", "bin", "source", "run"]) mkdirSync(this.dir.file(name));
    writeFileSync(this.dir.file("source/istio-cni"), PLUGIN);
  }

  /** Another one, with the same files. */
  copy(): CniNode {
    const copy = new CniNode();
    for (const directory of ["net.d", "bin", "run"]) {
      for (const name of readdirSync(this.dir.file(directory))) {
        const [from, to] = [this, copy].map(({ dir }) => dir.file(`${directory}/${name}`)) as [string, string];
        const { mode, uid, gid } = statSync(from);
        writeFileSync(to, readFileSync(from));
        chownSync(to, uid, gid);
        chmodSync(to, mode);
      }
    }
    return copy;
  }

  config(changes: Partial<InstallerConfig> = {}): InstallerConfig {
    return {
      chained: true,
      cniBinDir: this.dir.file("bin"),
      cniConfGroupRead: false,
      cniConfName: "",
      cniNetDir: this.netDir,
      istioOwnedConfig: false,
      istioOwnedConfigName: "02-istio-cni.conflist",
      pluginSourceDir: this.dir.file("source"),
      runDir: this.dir.file("run"),
      ...changes,
    };
  }

  installer(changes: Partial<InstallerConfig> = {}): Installer {
    return new Installer(this.config(changes), ENTRY, this.logger, this.metrics);
  }

  keeper(changes: Partial<InstallerConfig> = {}): Keeper {
    const { logger, metrics } = this;
    return new Keeper({ installer: this.installer(changes), clock: systemClock, logger, metrics, drift: this.drift });
  }

  get netDir(): string {
    return this.dir.file("net.d");
  }

  get binary(): string {
    return this.dir.file("bin/istio-cni");
  }

  conf(name: string): string {
    return join(this.netDir, name);
  }

  write(name: string, content: string | Buffer, mode = 0o644): void {
    writeFileSync(this.conf(name), content, { mode });
  }

  read(name: string): string {
    return readFileSync(this.conf(name), "latin1");
  }

  names(): string[] {
    return readdirSync(this.netDir).sort();
  }

  installs(result: string): number {
    return this.metrics.counts.get(`istio_cni_installs_total${JSON.stringify({ result })}`) ?? 0;
  }

  warnings(): string[] {
    return this.logger.lines.filter(({ level }) => level === "warn").map(({ message }) => message);
  }

  [Symbol.dispose](): void {
    this.dir[Symbol.dispose]();
  }
}
