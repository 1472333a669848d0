// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { PeerAnswer, PeerCommand, PeerReport } from "./zds-peer-process.ts";

/** The test's handle of a ztunnel in another process; killed when its scope ends. */
export class ZdsProcess implements AsyncDisposable {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  static async start(options: { readonly uid?: number } = {}): Promise<ZdsProcess> {
    const script = fileURLToPath(new URL("./zds-peer-process.ts", import.meta.url));
    // The process gives root up itself, once loaded: the checkout may be readable for root alone.
    const child = fork(script, options.uid === undefined ? [] : [String(options.uid)], {
      execArgv: ["--import", "tsx"],
    });
    await once(child, "message");
    return new ZdsProcess(child);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** @throws Error with the text of what failed over there. */
  async ask(command: PeerCommand): Promise<PeerReport> {
    const answer = await new Promise<PeerAnswer>((resolve, reject) => {
      const answered = (message: PeerAnswer) => {
        this.#child.off("exit", ended);
        resolve(message);
      };
      const ended = (code: number | null, signal: string | null) => {
        this.#child.off("message", answered);
        reject(new Error(`the peer has ended: ${code ?? signal}`));
      };
      this.#child.once("message", answered).once("exit", ended);
      this.#child.send(command);
    });
    if ("error" in answer) throw new Error(answer.error);
    return answer.report;
  }

  connect(path: string): Promise<PeerReport> {
    return this.ask({ do: "connect", path, hello: true });
  }

  report(): Promise<PeerReport> {
    return this.ask({ do: "report" });
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}
