// SPDX-License-Identifier: Apache-2.0
import { messageOf } from "../core/errors.ts";
import type { ManualClaim, ManualClaims } from "../core/ports/manual.ts";
import type { NetnsId } from "../core/ports/netns.ts";
import type { Logger } from "../core/ports/telemetry.ts";

/**
 * What was captured by hand, in a file for the next agent. Changes, and decisions about what may be claimed, are
 * made one after the other. What this agent can't see stays in it: not seeing a capture does not end it.
 */
export class ManualRecord {
  #last: Promise<unknown> = Promise.resolve();
  /** Why the file can't be read: then it is left as it is. */
  #unreadable: unknown;
  readonly #unseen = new Map<NetnsId, ManualClaim>();
  /** The last change may not be in the file. */
  #behind = false;

  /** `live`: what this agent has captured by hand. */
  constructor(
    private readonly parts: { readonly claims: ManualClaims; readonly logger: Logger },
    private readonly live: () => readonly ManualClaim[],
  ) {}

  /** What an agent before this one has written, each netns once; nothing, and a log line, where it can't be read. */
  async read(): Promise<readonly ManualClaim[]> {
    try {
      const claims = await this.parts.claims.read();
      return [...new Map(claims.map((claim) => [claim.netnsId, claim])).values()];
    } catch (error) {
      this.#unreadable = error;
      this.parts.logger.error("what was captured by hand can't be read, and stays as it is", {
        reason: messageOf(error),
      });
      return [];
    }
  }

  /** Claims of which nobody can tell here whether they hold. */
  unseen(): readonly ManualClaim[] {
    return [...this.#unseen.values()];
  }

  /** Whether that is news. */
  keepUnseen(claim: ManualClaim): boolean {
    const news = !this.#unseen.has(claim.netnsId);
    this.#unseen.set(claim.netnsId, claim);
    return news;
  }

  /** It is seen, or gone for good. */
  settle(netns: NetnsId): void {
    this.#unseen.delete(netns);
  }

  /** One task at a time: two must not claim one netns. */
  serial<T>(task: () => Promise<T>): Promise<T> {
    const run = this.#last.then(task);
    this.#last = run.catch(() => undefined);
    return run;
  }

  /** Within `serial`: with one claim more. @throws AgentError CLAIMS_INVALID for a file that can't be read; of the file system */
  async claim(claim: ManualClaim): Promise<void> {
    await this.#write([...this.live(), claim]);
  }

  /** @throws as `claim` */
  save(): Promise<void> {
    return this.serial(() => this.#write(this.live()));
  }

  /** The kernel decides: who comes next finds nothing of ours there, and believes that. */
  async trySave(): Promise<void> {
    await this.save().catch((error: unknown) => {
      this.parts.logger.error("the record of captures by hand can't be written", { reason: messageOf(error) });
    });
  }

  /** Writes what could not be written before. */
  async catchUp(): Promise<void> {
    if (this.#behind) await this.trySave();
  }

  async #write(claims: readonly ManualClaim[]): Promise<void> {
    if (this.#unreadable !== undefined) throw this.#unreadable;
    this.#behind = true;
    await this.parts.claims.write([...claims, ...this.#unseen.values()]);
    this.#behind = false;
  }
}
