// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import { PLUGIN_SOCKET_MODE, RUN_FILE } from "../core/constants.ts";
import { AgentError, messageOf } from "../core/errors.ts";
import type { LogFields, Logger } from "../core/ports/telemetry.ts";
import { readBody, respond, UnixHttpServer } from "../sys/unix-http.ts";

const BODY_MAX = 1 << 20;
const ENTRIES_MAX = 1000;
const FIELDS_MAX = 32;
const TEXT_MAX = 4096;

/** Keys that the logger itself writes; the plugin's time is kept under another name. */
const OWN_KEYS = new Set(["level", "msg", "scope", "time"]);

type Level = "debug" | "info" | "warn" | "error";

interface Entry {
  readonly level: Level;
  readonly message: string;
  readonly fields: LogFields;
}

/**
 * Takes the plugins' log lines on `<run dir>/log.sock` and writes them into the agent's own log, scope
 * `cni-plugin`. Protocol of upstream: POST /log, a JSON array of strings, each an encoded entry.
 */
export class LogServer {
  private readonly http: UnixHttpServer;
  private readonly logger: Logger;

  constructor(runDir: string, logger: Logger) {
    this.logger = logger.child("cni-plugin");
    this.http = new UnixHttpServer({
      path: join(runDir, RUN_FILE.logSocket),
      mode: PLUGIN_SOCKET_MODE,
      listener: (request, response) => void this.answer(request, response),
      failed: (error) => this.logger.error("a plugin's connection could not be accepted", { error: error.message }),
    });
  }

  /** Binds the socket. @throws as UnixHttpServer.listen */
  listen(): Promise<void> {
    return this.http.listen();
  }

  stop(): Promise<void> {
    return this.http.stop();
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      if (request.method !== "POST" || request.url !== "/log") {
        respond(response, 404, "text/plain", "only POST /log is served");
        return;
      }
      const entries = parseEntries(await readBody(request, BODY_MAX));
      for (const { level, message, fields } of entries) this.logger[level](message, fields);
      respond(response, 200, "text/plain", "");
    } catch (error) {
      respond(response, 400, "text/plain", messageOf(error));
      this.logger.debug("a log request was refused", { error: messageOf(error) });
    }
  }
}

function parseEntries(body: string): Entry[] {
  const list = parseJson(body, "the body");
  if (!Array.isArray(list)) throw new AgentError("BAD_REQUEST", "the body is not an array");
  if (list.length > ENTRIES_MAX) {
    throw new AgentError("BAD_REQUEST", `the body holds ${list.length} entries, more than ${ENTRIES_MAX}`);
  }
  return list.map((item: unknown, index) => {
    if (typeof item !== "string") throw new AgentError("BAD_REQUEST", `entry ${index} is not a string`);
    return parseEntry(parseJson(item, `entry ${index}`), index);
  });
}

function parseEntry(value: unknown, index: number): Entry {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new AgentError("BAD_REQUEST", `entry ${index} is not an object`);
  }
  const { level, msg, time, ...rest } = value as Record<string, unknown>;
  const fields: Record<string, unknown> = {};
  if (typeof time === "string") fields.pluginTime = cut(time);
  for (const [key, field] of Object.entries(rest).slice(0, FIELDS_MAX)) {
    if (OWN_KEYS.has(key)) continue;
    fields[cut(key)] = typeof field === "number" || typeof field === "boolean" ? field : cut(textOf(field));
  }
  return { level: levelOf(level), message: cut(textOf(msg).trim()), fields };
}

function parseJson(text: string, what: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new AgentError("BAD_REQUEST", `${what} is not JSON`);
  }
}

/** Nothing that a plugin writes ends the agent, so `fatal` is an error here. */
function levelOf(level: unknown): Level {
  if (level === "debug" || level === "warn" || level === "error") return level;
  return level === "fatal" ? "error" : "info";
}

const textOf = (value: unknown): string => (typeof value === "string" ? value : (JSON.stringify(value) ?? ""));
const cut = (text: string): string => (text.length > TEXT_MAX ? `${text.slice(0, TEXT_MAX)}...` : text);
