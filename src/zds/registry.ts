// SPDX-License-Identifier: Apache-2.0
import type { Session } from "./session.ts";

/** The live connections in the order in which they were accepted: the last one is the newest. */
export class Registry {
  readonly #sessions = new Map<number, Session>();

  get size(): number {
    return this.#sessions.size;
  }

  add(session: Session): void {
    this.#sessions.set(session.id, session);
  }

  /** In any order: which connection is newest never depends on the order in which others left. */
  remove(session: Session): void {
    this.#sessions.delete(session.id);
  }

  all(): Session[] {
    return [...this.#sessions.values()];
  }

  /** Connections whose snapshot was cut: only these may be told of later changes. */
  started(): Session[] {
    return this.all().filter((session) => session.state === "snapshot" || session.state === "ready");
  }

  /** Who is asked to serve a workload: the newest that finished its snapshot, else the newest that is in it. */
  serving(): Session | undefined {
    const started = this.started();
    return started.findLast((session) => session.state === "ready") ?? started.at(-1);
  }

  /** Newer connections that are still in their snapshot: they will take over, so they must learn what they missed. */
  successors(session: Session): Session[] {
    return this.started().filter((other) => other.id > session.id && other.state === "snapshot");
  }

  /** True when a live connection runs the workload or will be told of it. */
  knows(uid: string): boolean {
    return this.started().some((session) => session.knows(uid));
  }
}
