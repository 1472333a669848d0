// SPDX-License-Identifier: Apache-2.0
import { type Logger as Pino, pino } from "pino";
import type { LogLevel } from "../core/config/config.ts";
import { messageOf } from "../core/errors.ts";
import type { LogFields, Logger } from "../core/ports/telemetry.ts";
import type { LogSink } from "./log-sink.ts";
import { textLine } from "./log-text.ts";
import { RecentLines } from "./recent-lines.ts";

export interface LogOptions {
  /** By scope; `default` is for all others. */
  readonly levels: ReadonlyMap<string, LogLevel>;
  readonly json: boolean;
}

export interface ScopeLevel {
  readonly scope: string;
  readonly level: LogLevel;
  readonly configured: LogLevel;
}

/** Keys of every line: a field of the same name is given an underscore. */
const OWN_KEYS = new Set(["time", "level", "scope", "msg"]);
const MAX_MESSAGE = 16_384;
const pinoLevel = (level: LogLevel) => (level === "none" ? "silent" : level);

/**
 * The agent's log: pino with upstream's keys (`time` RFC 3339, `level` as a word, `scope`, `msg`), or
 * upstream's text. Levels are per scope and may be changed while running.
 */
export class Log {
  readonly #sink: RecentLines;
  readonly #root: Pino;
  readonly #scopes = new Map<string, ScopeLogger>();
  readonly #configured: ReadonlyMap<string, LogLevel>;
  readonly #levels: Map<string, LogLevel>;

  constructor(options: LogOptions, sink: LogSink) {
    this.#sink = new RecentLines(sink);
    this.#configured = new Map(options.levels);
    this.#levels = new Map(options.levels);
    const lines = this.#sink;
    const stream = options.json ? lines : { write: (line: string) => lines.write(textLine(line)) };
    this.#root = pino(
      {
        level: "debug",
        // No pid and host name: Kubernetes adds its own.
        base: null,
        timestamp: () => `,"time":"${new Date().toISOString()}"`,
        formatters: { level: (label) => ({ level: label }) },
      },
      stream,
    );
  }

  /** The logger of a scope; the same one each time. */
  scope(name: string): Logger {
    let logger = this.#scopes.get(name);
    if (logger === undefined) {
      const child = this.#root.child({ scope: name }, { level: pinoLevel(this.#levelOf(name)) });
      logger = new ScopeLogger(child, (scope) => this.scope(scope));
      this.#scopes.set(name, logger);
    }
    return logger;
  }

  /** Sets the level of one scope; of `default`: of every scope that has none of its own; of `all`: of every scope. */
  setLevel(scope: string, level: LogLevel): void {
    if (scope === "all") this.#levels.clear();
    this.#levels.set(scope === "all" ? "default" : scope, level);
    this.#apply();
  }

  /** Back to what the configuration says. */
  resetLevels(): void {
    this.#levels.clear();
    for (const [scope, level] of this.#configured) this.#levels.set(scope, level);
    this.#apply();
  }

  /** Levels by scope, of every scope that has written or has a level of its own, with the configured ones. */
  levels(): readonly ScopeLevel[] {
    const names = new Set(["default", ...this.#configured.keys(), ...this.#levels.keys(), ...this.#scopes.keys()]);
    return [...names].sort().map((scope) => ({
      scope,
      level: this.#levelOf(scope),
      configured: levelIn(this.#configured, scope),
    }));
  }

  /** The last lines, oldest first. */
  recent(): readonly string[] {
    return this.#sink.lines();
  }

  /** Writes what is buffered, synchronously: before the process ends. */
  flush(): void {
    this.#sink.flush();
  }

  #apply(): void {
    for (const [name, logger] of this.#scopes) logger.setLevel(this.#levelOf(name));
  }

  #levelOf(scope: string): LogLevel {
    return levelIn(this.#levels, scope);
  }
}

function levelIn(levels: ReadonlyMap<string, LogLevel>, scope: string): LogLevel {
  return levels.get(scope) ?? levels.get("default") ?? "info";
}

class ScopeLogger implements Logger {
  constructor(
    private readonly pino: Pino,
    private readonly sibling: (scope: string) => Logger,
  ) {}

  debug(message: string, fields?: LogFields): void {
    this.#write("debug", message, fields);
  }

  info(message: string, fields?: LogFields): void {
    this.#write("info", message, fields);
  }

  warn(message: string, fields?: LogFields): void {
    this.#write("warn", message, fields);
  }

  error(message: string, fields?: LogFields): void {
    this.#write("error", message, fields);
  }

  child(scope: string): Logger {
    return this.sibling(scope);
  }

  setLevel(level: LogLevel): void {
    this.pino.level = pinoLevel(level);
  }

  #write(level: "debug" | "info" | "warn" | "error", message: string, fields: LogFields | undefined): void {
    if (!this.pino.isLevelEnabled(level)) return;
    this.pino[level](plainFields(fields), bounded(message));
  }
}

function plainFields(fields: LogFields | undefined): Record<string, unknown> {
  const plain: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(fields ?? {})) {
    const name = OWN_KEYS.has(key) ? `${key}_` : key;
    if (value instanceof Error) plain[name] = bounded(messageOf(value));
    else plain[name] = typeof value === "string" ? bounded(value) : value;
  }
  return plain;
}

function bounded(text: string): string {
  return text.length <= MAX_MESSAGE ? text : `${text.slice(0, MAX_MESSAGE)}... (${text.length} characters)`;
}
