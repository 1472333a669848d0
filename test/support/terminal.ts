// SPDX-License-Identifier: Apache-2.0
import { execFile } from "node:child_process";
import { NODE_NAME } from "../../src/sandbox/pod-records.ts";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import { PROGRAM } from "./sandbox.ts";
import { settled } from "./transcript.ts";

/** By its name, as in the image and in the document. */
const SHELL = `ambient-cni() { ${process.execPath} ${PROGRAM} "$@"; }`;

/** What a person types on the node as root, and what comes of it, in one text. */
export class Terminal {
  readonly transcripts = new Map<string, string>();

  constructor(private readonly sandbox: Sandbox) {}

  /** Runs these lines, one after the other; what they end with is part of what they say where it is not 0. */
  async type(name: string, ...lines: readonly string[]): Promise<string> {
    const said: string[] = [];
    for (const line of lines) said.push(`$ ${line}\n${await this.run(line)}`);
    return this.keep(name, said.join(""));
  }

  keep(name: string, text: string): string {
    const { node } = this.sandbox;
    const stand = [
      [`${node.dir}/etc/cni/net.d`, "/etc/cni/net.d"],
      [`${node.dir}/opt/cni/bin`, "/opt/cni/bin"],
      [node.dir, "/"],
    ] as const;
    const shown = settled(text, stand);
    this.transcripts.set(name, shown);
    return shown;
  }

  private run(line: string): Promise<string> {
    const { node } = this.sandbox;
    const [file = "", ...args] = node.enter(
      ["bash", "--norc", "-c", `${SHELL}\n{ ${line}\n} 2>&1`],
      `${node.cgroups.root}/system/init`,
    );
    const env = {
      PATH: process.env.PATH ?? "",
      MOUNTED_CNI_NET_DIR: node.path("etc/cni/net.d"),
      AMBIENT_CNI_BIN_DIR: node.path("opt/cni/bin"),
      NODE_NAME,
    };
    return new Promise((resolve, reject) => {
      execFile(file, args, { env, timeout: 30_000, maxBuffer: 1 << 20 }, (error, stdout) => {
        if (error !== null && typeof error.code !== "number") reject(error);
        else resolve(stdout);
      });
    });
  }
}
