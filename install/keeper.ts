// SPDX-License-Identifier: Apache-2.0
import { type BackoffOptions, backoffMs } from "../src/core/backoff.ts";
import type { Clock } from "../src/core/clock.ts";
import { AgentError, codeOf, messageOf } from "../src/core/errors.ts";
import type { Drift } from "../src/core/ports/drift.ts";
import type { LogFields, Logger, Metrics } from "../src/core/ports/telemetry.ts";
import { RepairPace } from "../src/core/repair-pace.ts";
import { DirectoryWatch } from "../src/sys/watch-dir.ts";
import type { Installer, Look } from "./installer.ts";

/** Between failed attempts to write. */
const BACKOFF: BackoffOptions = { initialMs: 1000, maxMs: 30_000, jitter: 0.2 };
/** While another program writes the same file. */
const RACE_BACKOFF: BackoffOptions = { initialMs: 25, maxMs: 5000, jitter: 0.2 };
/** From an event to the look: a CNI that writes its file in pieces is mostly done by then. */
const SETTLE_MS = 25;
const SWEEP_MS = 30_000;
/** When directories can't be watched, or a file in them can't be read. */
const POLL_MS = 2000;
/** So many repairs without a quiet minute between are no accident. */
const FIGHT = 5;
/** The same warning is not given again before (ms). */
const TELL_MS = 60_000;

export interface KeeperParts {
  readonly installer: Installer;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly drift: Pick<Drift, "repaired">;
}

/**
 * Keeps the plugin installed on the node, for as long as it runs: waits for a configuration to chain into,
 * and puts right what other programs write over, rename or delete. One pass at a time.
 */
export class Keeper {
  private readonly logger: Logger;
  private readonly watches: readonly DirectoryWatch[];
  private readonly pace = new RepairPace();
  /** Why the plugin is not called; before the first whole installation, it isn't ours yet. */
  private absence: string | undefined = "not installed yet";
  private whole = false;
  /** No temporary file is left by a run that was killed or a step that failed. */
  private tidy = false;
  private path: string | undefined;
  private failures = 0;
  /** No step is taken before (ms of the clock); looking is always allowed. */
  private notBefore = Number.NEGATIVE_INFINITY;
  private acted = false;
  /** When each thing was last told. */
  private readonly told = new Map<string, number>();
  private stopped = false;
  private due = Number.POSITIVE_INFINITY;
  private cancelTimer: () => void = () => undefined;
  private turn: Promise<void> = Promise.resolve();

  constructor(private readonly parts: KeeperParts) {
    this.logger = parts.logger.child("cni-install");
    this.watches = parts.installer.directories.map((path) => new DirectoryWatch(path, () => this.wake(SETTLE_MS)));
  }

  /** Installs now, and again when something of it is gone. Returns at once. */
  start(): void {
    this.wake(0);
  }

  /** What keeps runtimes from calling the plugin, in a sentence for /readyz; undefined while nothing does. */
  missing(): string | undefined {
    if (this.absence === undefined) return undefined;
    const repairs = this.pace.count(this.parts.clock.now());
    const fight = repairs < FIGHT ? "" : `; another program undid it ${repairs} times`;
    return `CNI plugin: ${this.absence}${fight}`;
  }

  /** The configuration that holds our entry; undefined before there is one. */
  get confPath(): string | undefined {
    return this.path;
  }

  /** Leaves everything as it is. Resolves when no write is under way; idempotent, also before `start`. */
  async stop(): Promise<void> {
    this.stopped = true;
    this.cancelTimer();
    for (const watch of this.watches) watch.close();
    await this.turn;
  }

  /**
   * Stops and gives the node's configurations back as they were. The plugin itself stays: pods that
   * still run are torn down through it.
   * @throws AgentError naming the file
   */
  async remove(): Promise<void> {
    await this.stop();
    await this.parts.installer.restore();
  }

  private wake(ms: number): void {
    const at = this.parts.clock.now() + ms;
    if (this.stopped || at >= this.due) return;
    this.cancelTimer();
    this.due = at;
    this.cancelTimer = this.parts.clock.after(ms, () => {
      this.due = Number.POSITIVE_INFINITY;
      this.turn = this.turn.then(() => this.pass());
    });
  }

  private async pass(): Promise<void> {
    if (this.stopped) return;
    // Watched before looked at: what happens in between must not be missed.
    this.wake((await this.watch()) ? SWEEP_MS : POLL_MS);
    const look = await this.parts.installer.look();
    if (this.stopped) return;
    for (const warning of look.warnings) this.tell(warning);
    if (look.steps.length > 0) await this.act(look);
    else if (look.problem !== undefined) this.wait(look, look.problem);
    else await this.rest(look);
  }

  /** Whether events tell of changes from now on. */
  private async watch(): Promise<boolean> {
    const troubles = await Promise.all(this.watches.map((watch) => watch.refresh()));
    const trouble = troubles.find((each) => each !== undefined);
    if (trouble !== undefined) this.tell("CNI directories can't be watched and are polled", { error: trouble });
    return trouble === undefined;
  }

  private async act(look: Look): Promise<void> {
    this.note(look);
    const wait = this.notBefore - this.parts.clock.now();
    if (wait > 0) return this.wake(wait);
    try {
      await this.parts.installer.carryOut(look);
    } catch (error) {
      return this.failed(error);
    }
    this.failures = 0;
    // Also what is undone before it was ever seen whole: such a fight has no beginning to wait for.
    if (this.whole || this.acted) this.repaired(look);
    this.acted = true;
    // Whether that was all shows in the next look.
    this.wake(0);
  }

  private failed(error: unknown): void {
    if (!this.whole) this.absence = messageOf(error);
    this.tidy = false;
    // Another program is at work on the same file, and may be done in a moment.
    const raced = codeOf(error) === "FILE_CHANGED";
    const retryMs = Math.round(backoffMs(raced ? RACE_BACKOFF : BACKOFF, this.failures++));
    this.notBefore = this.parts.clock.now() + retryMs;
    this.wake(retryMs);
    const fields = { ...fieldsOf(error), retryMs };
    if (raced) this.logger.info("installing the CNI plugin", fields);
    else this.logger.warn("installing the CNI plugin", fields);
  }

  /** What was right, and then was not, is right again. */
  private repaired(look: Look): void {
    const now = this.parts.clock.now();
    this.pace.begins(now);
    this.pace.repaired();
    this.notBefore = now + this.pace.delay(now);
    const whats = [...new Set(look.steps.map(({ what }) => what))];
    for (const what of whats) {
      this.parts.metrics.count("ambient_cni_install_repairs_total", { what });
      this.parts.drift.repaired(what, undefined, look.missing ?? `${what} was not as written (${look.confPath})`);
    }
    const repairs = this.pace.count(now);
    const fields = { what: whats, conf: look.confPath, ...(look.missing === undefined ? {} : { was: look.missing }) };
    if (repairs < FIGHT) {
      this.logger.warn("the CNI installation had been changed; repaired", fields);
      return;
    }
    this.tell("another program keeps undoing the CNI installation", {
      ...fields,
      repairs,
      remedy: look.cilium
        ? "set cni.exclusive=false in Cilium's Helm values"
        : "let the program that manages the node's CNI configuration leave other programs' plugins in it",
    });
  }

  /** Nothing to be done until something changes, which an event or the sweep will show. */
  private wait(look: Look, { error, result }: NonNullable<Look["problem"]>): void {
    if (!this.whole) this.absence = messageOf(error);
    this.note(look);
    // Nothing tells that a disk can be read again.
    if (!codeOf(error).startsWith("CNI_CONF")) this.wake(POLL_MS);
    if (this.tell("the CNI plugin can't be installed; waiting", fieldsOf(error))) {
      this.parts.metrics.count("istio_cni_installs_total", { result });
    }
  }

  private async rest(look: Look): Promise<void> {
    this.failures = 0;
    // Not before every write: other programs' temporary files look the same.
    this.tidy ||= await this.parts.installer.tidy();
    if (!this.whole) {
      if (!this.acted) this.parts.metrics.count("istio_cni_installs_total", { result: "SUCCESS" });
      this.logger.info("CNI plugin installed", { conf: look.confPath, changed: this.acted });
      this.whole = true;
    }
    this.path = look.confPath;
    this.note(look);
  }

  private note(look: Look): void {
    if (!this.whole) return;
    this.absence = look.missing;
    this.parts.metrics.set("istio_cni_install_ready", look.missing === undefined ? 1 : 0);
  }

  /** Warns, but of the same thing only once in a while. Returns whether it did. */
  private tell(message: string, fields: LogFields = {}): boolean {
    const now = this.parts.clock.now();
    const key = `${message} ${JSON.stringify({ ...fields, repairs: undefined })}`;
    for (const [each, at] of this.told) if (now - at >= TELL_MS) this.told.delete(each);
    if (this.told.has(key)) return false;
    this.told.set(key, now);
    this.logger.warn(message, fields);
    return true;
  }
}

function fieldsOf(error: unknown): LogFields {
  const remedy = error instanceof AgentError ? error.remedy : undefined;
  return { code: codeOf(error), error: messageOf(error), ...(remedy === undefined ? {} : { remedy }) };
}
