// SPDX-License-Identifier: Apache-2.0
import type { Clock } from "../core/clock.ts";
import { messageOf } from "../core/errors.ts";
import type { Logger } from "../core/ports/telemetry.ts";
import type { CredentialSource, Credentials } from "./credentials.ts";

/** Kubelet rotates a mounted token long before it expires; a minute is what client-go uses too. */
const MAX_AGE_MS = 60_000;

/** Holds the credentials and reads them again each minute, and when the server refused them. */
export class CredentialKeeper {
  readonly #source: CredentialSource;
  readonly #clock: Clock;
  readonly #logger: Logger;
  #held: Credentials | undefined;
  #readAt = 0;
  #reading: Promise<Credentials> | undefined;
  #complained = false;

  constructor(source: CredentialSource, clock: Clock, logger: Logger) {
    this.#source = source;
    this.#clock = clock;
    this.#logger = logger;
  }

  /** Credentials at most a minute old. @throws AgentError KUBE_CREDENTIALS while none was ever readable. */
  async current(): Promise<Credentials> {
    if (this.#held !== undefined && this.#clock.now() - this.#readAt < MAX_AGE_MS) return this.#held;
    return this.renew();
  }

  /** Reads again now; calls made meanwhile share one reading. What was held stays when that fails. */
  renew(): Promise<Credentials> {
    this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #read(): Promise<Credentials> {
    try {
      this.#held = await this.#source.load();
      this.#complained = false;
    } catch (error) {
      if (this.#held === undefined) throw error;
      if (!this.#complained) {
        this.#logger.warn("credentials can't be read again, going on with the old ones", { error: messageOf(error) });
      }
      this.#complained = true;
    }
    this.#readAt = this.#clock.now();
    return this.#held;
  }
}
