// SPDX-License-Identifier: Apache-2.0
import { type BackoffOptions, backoffMs } from "../src/core/backoff.ts";
import type { Clock } from "../src/core/clock.ts";
import { messageOf } from "../src/core/errors.ts";
import type { Logger, Metrics } from "../src/core/ports.ts";
import type { Installer, InstallOutcome } from "./installer.ts";

const BACKOFF: BackoffOptions = { initialMs: 1000, maxMs: 30_000, jitter: 0.2 };

export interface KeeperParts {
  readonly installer: Installer;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Metrics;
}

/** Keeps the plugin installed on the node, for as long as it runs. */
export class Keeper {
  private readonly logger: Logger;
  private problem: string | undefined = "CNI plugin: not installed yet";
  private outcome: InstallOutcome | undefined;
  private attempt = 0;
  private stopped = false;
  private cancelTimer: () => void = () => undefined;
  private underWay: Promise<void> = Promise.resolve();

  constructor(private readonly parts: KeeperParts) {
    this.logger = parts.logger.child("cni-install");
  }

  /** Installs now, and again when something of it is gone. Returns at once. */
  start(): void {
    this.underWay = this.pass();
  }

  /** What keeps the runtime from calling the plugin, in a sentence for /readyz; undefined while nothing does. */
  missing(): string | undefined {
    return this.problem;
  }

  /** What is installed, as of the last pass that succeeded. */
  installed(): InstallOutcome | undefined {
    return this.outcome;
  }

  /** Leaves everything as it is. Resolves when no write is under way; idempotent, also before `start`. */
  async stop(): Promise<void> {
    this.stopped = true;
    this.cancelTimer();
    await this.underWay;
  }

  /**
   * Stops and gives the node's configurations back as they were. The plugin itself stays: pods that
   * still run are torn down through it.
   * @throws AgentError naming the file; errors of the file system
   */
  async remove(): Promise<void> {
    await this.stop();
    await this.parts.installer.restore();
  }

  private async pass(): Promise<void> {
    try {
      this.outcome = await this.parts.installer.install();
      this.problem = undefined;
      this.parts.metrics.set("istio_cni_install_ready", 1);
    } catch (error) {
      const retryMs = Math.round(backoffMs(BACKOFF, this.attempt++));
      this.problem = `CNI plugin: not installed: ${messageOf(error)}`;
      this.logger.warn("installing the CNI plugin", { error: messageOf(error), retryMs });
      if (this.stopped) return;
      this.cancelTimer = this.parts.clock.after(retryMs, () => {
        this.underWay = this.pass();
      });
    }
  }
}
