// SPDX-License-Identifier: Apache-2.0
import { type IncomingMessage, type RequestOptions, request } from "node:http";
import { connect } from "node:net";
import * as v from "valibot";
import { AgentError, codeOf, messageOf } from "../../core/errors.ts";
import { DEBUG_PREFIX } from "../../core/report/document.ts";
import { linesOf } from "./lines.ts";
import { AgentUnreachable } from "./unreachable.ts";

/** A node has at most some hundred pods: more than this is no answer of the agent's. */
const ANSWER_MAX = 16 << 20;

const ABSENT = "is it running on this node? kubectl -n istio-system get pods -l k8s-app=istio-cni-node -o wide";

const errorSchema = v.object({
  error: v.object({ code: v.string(), message: v.string(), remedy: v.nullable(v.string()) }),
});

export interface Question {
  readonly name: string;
  readonly query?: Readonly<Record<string, string>>;
  /** Present: POST. */
  readonly body?: unknown;
}

/**
 * Asks the agent over its debug socket. Nothing that a peer does takes longer than `timeoutMs` (for the questions of
 * `slow`: than theirs), or more memory than an answer may have.
 */
export class AgentClient {
  constructor(
    readonly socket: string,
    private readonly timeoutMs: number,
    private readonly slow: Readonly<Record<string, number>> = {},
  ) {}

  /**
   * The answer as JSON.
   * @throws AgentUnreachable; AgentError NOT_PERMITTED; the agent's own AgentError
   */
  async ask({ name, query = {}, body }: Question): Promise<unknown> {
    const path = pathOf(name, query);
    const { status, text } = await this.send(path, body, this.slow[name] ?? this.timeoutMs);
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch {
      throw this.broken(`answers with what is no JSON: ${JSON.stringify(text.slice(0, 60))}`);
    }
    if (status === 200) return json;
    throw this.refusal(path, status, json);
  }

  /**
   * Lines of an answer that has no end. The iterator ends when `signal` is aborted; while nobody takes its lines the
   * agent is not read.
   * @throws as `ask`; AgentUnreachable when the agent ends it
   */
  async *lines({ name, query = {} }: Question, lineMax: number, signal: AbortSignal): AsyncGenerator<string> {
    const path = pathOf(name, query);
    const incoming = await this.opened(path, signal);
    if (incoming === undefined) return;
    const status = incoming.statusCode ?? 0;
    if (status !== 200) throw this.refusal(path, status, parsed(await collect(incoming)));
    try {
      yield* linesOf(incoming, lineMax);
    } catch (error) {
      if (signal.aborted) return;
      throw this.explained(error);
    } finally {
      incoming.destroy();
    }
    throw this.broken("has ended");
  }

  /** The head of an answer, which has to come in time; undefined when `signal` is aborted before. */
  private opened(path: string, signal: AbortSignal): Promise<IncomingMessage | undefined> {
    return new Promise((resolve, reject) => {
      const outgoing = request({ ...this.direct(), path, signal }, (incoming) => {
        clearTimeout(timer);
        resolve(incoming);
      });
      const timer = setTimeout(() => {
        reject(this.broken(`does not answer within ${this.timeoutMs} ms`));
        outgoing.destroy();
      }, this.timeoutMs);
      outgoing.on("error", (error) => {
        clearTimeout(timer);
        if (signal.aborted) resolve(undefined);
        else reject(this.explained(error));
      });
      outgoing.end();
    });
  }

  /** What an answer says that is none. */
  private refusal(path: string, status: number, json: unknown): AgentError {
    const failure = v.safeParse(errorSchema, json);
    if (!failure.success) return this.broken(`answers with HTTP status ${status} and no reason`);
    const { code, message, remedy } = failure.output.error;
    if (code === "NOT_FOUND") return this.broken(`is of another version and does not know ${path}`);
    if (code === "DEADLINE" || code === "BUSY") return this.broken(`says: ${message}`);
    return new AgentError(code, message, remedy ?? undefined);
  }

  /** `does`: what it does in place of an answer. */
  broken(does: string, cause?: unknown): AgentUnreachable {
    return new AgentUnreachable("broken", `the agent at ${this.socket} ${does}`, { cause });
  }

  /** A connection for one question. By http's own Agent it would take longer: that looks at the name of a host. */
  private direct(): Pick<RequestOptions, "createConnection"> {
    return { createConnection: () => connect(this.socket) };
  }

  private send(
    path: string,
    body: unknown,
    timeoutMs: number,
  ): Promise<{ readonly status: number; readonly text: string }> {
    const sent = body === undefined ? "" : JSON.stringify(body);
    return new Promise((resolve, reject) => {
      const outgoing = request({ ...this.direct(), path, method: body === undefined ? "GET" : "POST" }, (incoming) => {
        collect(incoming).then(
          (text) => resolve({ status: incoming.statusCode ?? 0, text }),
          (error: unknown) => fail(error),
        );
      });
      // One deadline for all of it: a byte every second is no answer either.
      const timer = setTimeout(() => {
        fail(this.broken(`does not answer within ${timeoutMs} ms`));
      }, timeoutMs);
      const fail = (error: unknown) => {
        clearTimeout(timer);
        reject(this.explained(error));
        outgoing.destroy();
      };
      outgoing.on("error", fail);
      outgoing.on("close", () => clearTimeout(timer));
      outgoing.end(sent);
    });
  }

  private explained(error: unknown): unknown {
    if (error instanceof AgentError) return error;
    const code = codeOf(error);
    switch (code) {
      case "ENOENT":
      case "ECONNREFUSED":
        return new AgentUnreachable("absent", `agent unreachable: ${code} ${this.socket}`, { cause: error }, ABSENT);
      case "EACCES":
      case "EPERM":
        return new AgentError("NOT_PERMITTED", `not permitted: ${code} ${this.socket}`, "only root may ask the agent", {
          cause: error,
        });
      case "EPIPE":
      case "ECONNRESET":
        return this.broken("hangs up before its answer is whole", error);
      default:
        return this.broken(`can't be understood: ${messageOf(error)}`, error);
    }
  }
}

function pathOf(name: string, query: Readonly<Record<string, string>>): string {
  const search = new URLSearchParams(query).toString();
  return `${DEBUG_PREFIX}${name}${search === "" ? "" : `?${search}`}`;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function collect(incoming: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let total = 0;
  for await (const chunk of incoming) {
    if (!Buffer.isBuffer(chunk)) continue;
    total += chunk.length;
    if (total > ANSWER_MAX) throw new Error(`an answer of more than ${ANSWER_MAX >> 20} MiB`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}
