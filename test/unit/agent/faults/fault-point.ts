// SPDX-License-Identifier: Apache-2.0

export type FaultKind =
  /** It fails, and nothing of it happens. */
  | "refused"
  /** It happens, and fails all the same. */
  | "lost"
  /** It happens after everybody has given it up. */
  | "late"
  /** The agent is killed before it. */
  | "killed before"
  /** The agent is killed after it, before it hears of it. */
  | "killed after"
  /** Nothing fails: something else happens meanwhile. */
  | "crossed"
  /** It fails for some time, whoever asks for it, and something else happens meanwhile. */
  | "down";

/** What becomes of a single call. */
export type Fate = Exclude<FaultKind, "crossed" | "down"> | undefined;

const WRITES =
  /^ztunnel|\.(annotate|prepare|capture|drain|release|handOver|allow|settle|revoke|reconcile|bequeath|redirect|write)$/;
/** Where a fault of a kind differs from those of the others: to lose a look is to refuse it. */
const TELLING: Partial<Readonly<Record<FaultKind, RegExp>>> = {
  lost: WRITES,
  late: /^ztunnel|\.annotate$/,
  "killed after": WRITES,
};

/** Counts what an agent asks of the world, and has one of these calls fail. */
export class FaultPoint {
  /** What the fault has met. */
  met: string | undefined;
  #kind: FaultKind = "refused";
  #left = Number.POSITIVE_INFINITY;
  #crossing: () => void = () => undefined;
  /** What fails for some time. */
  down: string | undefined;
  /** Also an undo may fail. */
  scattered = false;
  #draw: (name: string) => Fate = () => undefined;

  /** After so many calls; `crossing` is what happens then. */
  arm(kind: FaultKind, calls: number, crossing: () => void = () => undefined): void {
    this.met = undefined;
    this.#kind = kind;
    this.#left = calls;
    this.#crossing = crossing;
  }

  /** Any call may fail: `draw` says which. */
  scatter(draw: (name: string) => Fate): void {
    this.#draw = draw;
    this.scattered = true;
  }

  disarm(): void {
    this.#draw = () => undefined;
    this.#left = Number.POSITIVE_INFINITY;
    this.down = undefined;
  }

  /** undefined: it succeeds. */
  next(name: string): Fate {
    if (this.down === name) return "refused";
    if (TELLING[this.#kind]?.test(name) === false) return this.#draw(name);
    if (this.#left > 0) {
      this.#left -= 1;
      return this.#draw(name);
    }
    this.#left = Number.POSITIVE_INFINITY;
    this.met = name;
    if (this.#kind !== "crossed" && this.#kind !== "down") return this.#kind;
    if (this.#kind === "down") this.down = name;
    this.#crossing();
    return this.#kind === "down" ? "refused" : undefined;
  }
}
