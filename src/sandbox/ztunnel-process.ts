// SPDX-License-Identifier: Apache-2.0
import { randomBytes, randomUUID } from "node:crypto";
import { createWriteStream } from "node:fs";
import type { Child } from "../sys/child.ts";
import type { SandboxNode } from "./node.ts";

export interface ZtunnelOptions {
  /** A real ztunnel's binary; undefined = the stand-in. */
  readonly binary: string | undefined;
  /** Our own bundle, which holds the stand-in. */
  readonly program: string;
  readonly name: string;
  readonly nodeName: string;
  readonly meshPath: string;
  /** PEM of the authority that several stand-ins share. */
  readonly authorityPath: string;
}

/** A ztunnel that runs on the node as a pod of its own: own netns, own cgroup, the shared socket. */
export class ZtunnelProcess {
  private constructor(
    readonly child: Child,
    readonly log: string,
  ) {}

  static start(node: SandboxNode, options: ZtunnelOptions): ZtunnelProcess {
    const { binary, program, name, nodeName, meshPath, authorityPath } = options;
    const cgroup = node.cgroups.container(randomUUID(), randomBytes(32).toString("hex"));
    const command = binary === undefined ? [process.execPath, program, "sandbox-ztunnel"] : [binary, "proxy"];
    const enter = `ip link set lo up; exec "$@"`;
    const child = node.spawn(["unshare", "--net", "bash", "--norc", "-c", enter, "ztunnel", ...command], {
      cgroup,
      env: {
        PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        INPOD_UDS: "/var/run/ztunnel/ztunnel.sock",
        NODE_NAME: nodeName,
        FAKE_CA: "true",
        XDS_ADDRESS: "",
        LOCAL_XDS_PATH: meshPath,
        RUST_LOG: "info,access=debug",
        STANDIN_CA: authorityPath,
      },
      cwd: node.dir,
      stdio: ["ignore", "pipe", "pipe"],
    });
    const log = node.path(`${name}.log`);
    const stream = createWriteStream(log, { flags: "a" });
    // Removed under us when the sandbox is interrupted.
    stream.on("error", () => undefined);
    child.process.stdout?.pipe(stream, { end: false });
    child.process.stderr?.pipe(stream, { end: false });
    void child.exited.finally(() => stream.end());
    return new ZtunnelProcess(child, log);
  }
}
