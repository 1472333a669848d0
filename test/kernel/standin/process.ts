// SPDX-License-Identifier: Apache-2.0
// A ztunnel in a process and a netns of its own: the stand-in, or the binary in ZTUNNEL_BINARY, so that
// the same tests tell where the two differ.
import { type ChildProcess, spawn } from "node:child_process";
import { get } from "node:http";
import { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { native } from "../../../src/native/load.ts";
import { createNetns, type HeldNetns } from "../../../src/native/netns.ts";

const DEADLINE_MS = 8_000;
const ENTRY = fileURLToPath(new URL("entry.ts", import.meta.url));

/** Fields of one access log line. */
export type LogFields = Readonly<Record<string, string>>;

export class ZtunnelProcess implements AsyncDisposable {
  readonly lines: string[] = [];
  readonly exited: Promise<number | null>;
  private readonly child: ChildProcess;
  private readonly netns: HeldNetns;

  /** `resolv`: file that takes the place of /etc/resolv.conf. */
  constructor(env: Readonly<Record<string, string>>, resolv?: string) {
    this.netns = createNetns();
    const binary = process.env.ZTUNNEL_BINARY;
    const program = binary === undefined ? [process.execPath, "--import", "tsx", ENTRY] : [binary, "proxy"];
    const mount = resolv === undefined ? "" : `mount --bind ${resolv} /etc/resolv.conf && `;
    const shell = ["unshare", "--mount", "sh", "-c", `${mount}exec "$@"`, "sh"];
    const argv = ["--net=/proc/self/fd/3", "--", ...shell, ...program];
    this.child = spawn("nsenter", argv, {
      env: {
        PATH: process.env.PATH ?? "",
        NODE_NAME: "node1",
        FAKE_CA: "true",
        XDS_ADDRESS: "",
        RUST_LOG: "info,access=debug",
        ...env,
      },
      stdio: ["ignore", "pipe", "pipe", this.netns.fd],
    });
    this.exited = new Promise((resolve) => this.child.once("exit", resolve));
    for (const stream of [this.child.stdout, this.child.stderr]) {
      let rest = "";
      stream?.setEncoding("utf8").on("data", (chunk: string) => {
        const parts = (rest + chunk).split("\n");
        rest = parts.pop() ?? "";
        this.lines.push(...parts);
      });
    }
  }

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  /** Waits for a log line that the test accepts. */
  async line(accept: (line: string) => boolean): Promise<string> {
    const until = performance.now() + DEADLINE_MS;
    for (;;) {
      const found = this.lines.find(accept);
      if (found !== undefined) return found;
      if (performance.now() > until) throw new Error(`no such line in:\n${this.lines.join("\n")}`);
      await sleep(10);
    }
  }

  /** The access log line of the first connection whose fields are these. */
  async connection(wanted: LogFields, message = "connection complete"): Promise<LogFields> {
    const matches = (line: string) => {
      const fields = fieldsOf(line);
      return line.includes(message) && Object.entries(wanted).every(([key, value]) => fields[key] === value);
    };
    return fieldsOf(await this.line(matches));
  }

  /** `workloadState` of the config dump. */
  async workloadState(): Promise<Record<string, { state: string; info: object; connections?: object }>> {
    const dump = await this.http(15000, "/config_dump");
    return JSON.parse(dump.body).workloadState;
  }

  async readiness(): Promise<{ status: number; body: string }> {
    return this.http(15021, "/healthz/ready");
  }

  /** Asks until the answer is the wanted one. */
  async until<T>(ask: () => Promise<T>, wanted: (answer: T) => boolean): Promise<T> {
    const end = performance.now() + DEADLINE_MS;
    for (;;) {
      const answer = await ask().catch(() => undefined);
      if (answer !== undefined && wanted(answer)) return answer;
      if (performance.now() > end) throw new Error(`last answer: ${JSON.stringify(answer)}`);
      await sleep(20);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill("SIGKILL");
    await this.exited;
    this.netns.close();
  }

  private async http(port: number, path: string): Promise<{ status: number; body: string }> {
    const fd = await native().tcpConnect(this.netns.fd, { family: 4, address: "127.0.0.1", port, timeout: 2000 });
    return new Promise((resolve, reject) => {
      const request = get({ path, createConnection: () => new Socket({ fd }), timeout: 5000 }, (response) => {
        let body = "";
        response.setEncoding("utf8").on("data", (chunk: string) => {
          body += chunk;
        });
        response.on("end", () => resolve({ status: response.statusCode ?? 0, body }));
      });
      request.on("error", reject);
    });
  }
}

/** `key=value key="quoted value"` of a log line. */
export function fieldsOf(line: string): LogFields {
  const fields: Record<string, string> = {};
  for (const [, key = "", quoted, bare] of line.matchAll(/([\w.]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s"]+))/g)) {
    fields[key] = quoted ?? bare ?? "";
  }
  return fields;
}
