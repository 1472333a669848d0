// SPDX-License-Identifier: Apache-2.0
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import type { CaptureSpec, EngineName, Observation } from "../../src/core/ports/dataplane.ts";
import type { HeldNetns } from "../../src/native/netns.ts";
import type { LabAgentOptions, LabAgentRequest } from "./lab-agent-process.ts";
import { labBpffs } from "./lab-bpf.ts";

/** An agent's dataplane in a process of its own (lab-agent-process.ts), with this process's bpffs. */
export class LabAgent {
  readonly #lines: AsyncIterator<string>;
  readonly #reader: Interface;

  private constructor(readonly process: ChildProcessByStdio<Writable, Readable, null>) {
    this.#reader = createInterface({ input: process.stdout });
    this.#lines = this.#reader[Symbol.asyncIterator]();
  }

  /** Not started yet: `call("start")` does that. */
  static spawn(pods: readonly HeldNetns[], options: Partial<LabAgentOptions> = {}): LabAgent {
    const given: LabAgentOptions = {
      bpffs: labBpffs(),
      engine: "auto",
      ...options,
      pods: pods.map(({ fd }) => `/proc/${process.pid}/fd/${fd}`),
    };
    const program = join(import.meta.dirname, "lab-agent-process.ts");
    return new LabAgent(
      spawn(process.execPath, ["--import", "tsx", program, JSON.stringify(given)], {
        stdio: ["pipe", "pipe", "inherit"],
      }),
    );
  }

  static async start(pods: readonly HeldNetns[], options: Partial<LabAgentOptions> = {}): Promise<LabAgent> {
    const agent = LabAgent.spawn(pods, options);
    await agent.call("start");
    return agent;
  }

  /** @throws Error with the agent's message, or when it died. */
  async call(call: LabAgentRequest["call"], spec?: CaptureSpec, pod = 0): Promise<unknown> {
    const request: LabAgentRequest = { call, pod, spec };
    this.process.stdin.write(`${JSON.stringify(request)}\n`);
    const { value, done } = await this.#lines.next();
    if (done === true) throw new Error(`the agent died during ${call}`);
    const { result, error } = JSON.parse(value);
    if (error !== undefined) throw new Error(error);
    return result;
  }

  async capture(spec: CaptureSpec, pod = 0): Promise<EngineName> {
    return (await this.call("capture", spec, pod)) as EngineName;
  }

  async observe(spec: CaptureSpec, pod = 0): Promise<Observation> {
    return (await this.call("observe", spec, pod)) as Observation;
  }

  async programs(): Promise<Readonly<Record<string, number>>> {
    return (await this.call("programs")) as Readonly<Record<string, number>>;
  }

  /** SIGKILL: nothing is given back. Idempotent. */
  async kill(): Promise<void> {
    this.process.stdin.on("error", () => undefined);
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const gone = once(this.process, "exit");
    this.process.kill("SIGKILL");
    await gone;
  }
}
