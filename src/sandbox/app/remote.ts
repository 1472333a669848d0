// SPDX-License-Identifier: Apache-2.0
import { createInterface } from "node:readline";
import type { Child } from "../../sys/child.ts";
import type { AppCommand, AppReply, AppRequest, Exchange } from "./protocol.ts";

/** A failure inside the pod, with the errno that its program saw. */
export class AppError extends Error {
  override readonly name = "AppError";
  constructor(
    readonly code: string,
    message: string,
    readonly milliseconds: number,
  ) {
    super(message);
  }
}

/** The sandbox's end of the line to the program inside a pod. */
export class AppRemote {
  private readonly waiting = new Map<number, { resolve(reply: AppReply): void }>();
  private nextId = 1;
  private readyResolve: () => void = () => undefined;
  readonly ready = new Promise<void>((resolve) => {
    this.readyResolve = resolve;
  });

  constructor(readonly child: Child) {
    const { stdout } = child.process;
    if (stdout === null) throw new Error("the pod's program has no stdout");
    createInterface({ input: stdout }).on("line", (line) => {
      if (line === "ready") {
        this.readyResolve();
        return;
      }
      const reply = JSON.parse(line) as AppReply;
      this.waiting.get(reply.id)?.resolve(reply);
      this.waiting.delete(reply.id);
    });
    void child.exited.finally(() => {
      for (const [id, { resolve }] of this.waiting) {
        resolve({ id, ok: false, code: "EPODGONE", message: "the pod's program ended", milliseconds: 0 });
      }
      this.waiting.clear();
    });
  }

  private async ask(command: AppCommand, timeoutMs: number): Promise<Exchange | readonly string[] | string> {
    const request: AppRequest = { id: this.nextId++, timeoutMs, command };
    const reply = await new Promise<AppReply>((resolve) => {
      this.waiting.set(request.id, { resolve });
      this.child.process.stdin?.write(`${JSON.stringify(request)}\n`);
    });
    if (!reply.ok) throw new AppError(reply.code, reply.message, reply.milliseconds);
    return reply.value;
  }

  /** One HTTP request from inside the pod. @throws AppError with the pod's errno. */
  async fetch(url: string, marker = "", timeoutMs = 5000): Promise<Exchange> {
    return (await this.ask({ op: "fetch", url, marker }, timeoutMs)) as Exchange;
  }

  /** Opens a connection that stays. @throws AppError */
  async open(name: string, host: string, port: number, timeoutMs = 5000): Promise<Exchange> {
    return (await this.ask({ op: "open", name, host, port }, timeoutMs)) as Exchange;
  }

  /** Says a line on a kept connection and returns the echo. @throws AppError */
  async say(name: string, line: string, timeoutMs = 5000): Promise<string> {
    return (await this.ask({ op: "say", name, line }, timeoutMs)) as string;
  }

  async close(name: string): Promise<void> {
    await this.ask({ op: "close", name }, 1000);
  }

  /** Addresses that one nameserver gives for a name. @throws AppError */
  async resolve(server: string, host: string, family: 4 | 6 = 4, timeoutMs = 5000): Promise<readonly string[]> {
    return (await this.ask({ op: "resolve", server, host, family }, timeoutMs)) as readonly string[];
  }
}
