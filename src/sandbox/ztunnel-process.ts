// SPDX-License-Identifier: Apache-2.0
import { randomBytes, randomUUID } from "node:crypto";
import { createWriteStream } from "node:fs";
import { messageOf } from "../core/errors.ts";
import type { Child } from "../sys/child.ts";
import { Doorway } from "./doorway.ts";
import { firstLine, type SandboxNode } from "./node.ts";

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
  /** Where a real one gets its certificates. */
  readonly certificates: Certificates | undefined;
}

export interface Certificates {
  /** Of the service on this machine's loopback. */
  readonly port: number;
  /** PEM of the root that it answers by. */
  readonly rootPath: string;
}

const BEGIN = `ip link set lo up; exec "$@"`;
/** With a moment for its network to be connected. */
const BEGIN_CONNECTED = `ip link set lo up; echo built; read -r _; exec "$@"`;

/** A ztunnel that runs on the node as a pod of its own: own netns, own cgroup, the shared socket. */
export class ZtunnelProcess {
  private constructor(
    readonly child: Child,
    readonly log: string,
  ) {}

  static start(node: SandboxNode, options: ZtunnelOptions): ZtunnelProcess {
    const { binary, program, name, nodeName, meshPath, authorityPath, certificates } = options;
    const cgroup = node.cgroups.container(randomUUID(), randomBytes(32).toString("hex"));
    const command = binary === undefined ? [process.execPath, program, "sandbox-ztunnel"] : [binary, "proxy"];
    const begin = certificates === undefined ? BEGIN : BEGIN_CONNECTED;
    const child = node.spawn(["unshare", "--net", "bash", "--norc", "-c", begin, "ztunnel", ...command], {
      cgroup,
      env: {
        PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        INPOD_UDS: "/var/run/ztunnel/ztunnel.sock",
        NODE_NAME: nodeName,
        ...(certificates === undefined
          ? {}
          : { CA_ADDRESS: `https://localhost:${certificates.port}`, CA_ROOT_CA: certificates.rootPath }),
        XDS_ADDRESS: "",
        LOCAL_XDS_PATH: meshPath,
        RUST_LOG: "info,access=debug",
        STANDIN_CA: authorityPath,
      },
      cwd: node.dir,
      stdio: ["pipe", "pipe", "pipe"],
    });
    const log = node.path(`${name}.log`);
    const stream = createWriteStream(log, { flags: "a" });
    // Removed under us when the sandbox is interrupted.
    stream.on("error", () => undefined);
    child.process.stdout?.pipe(stream, { end: false });
    child.process.stderr?.pipe(stream, { end: false });
    void child.exited.finally(() => stream.end());
    if (certificates === undefined) child.process.stdin?.end();
    else void connected(child, certificates.port, (reason) => stream.write(`${reason}\n`));
    return new ZtunnelProcess(child, log);
  }
}

/** Lets it reach the service by its own loopback, and go on. One that can't is ended, and its log says why. */
async function connected(child: Child, port: number, failed: (reason: string) => void): Promise<void> {
  try {
    await firstLine(child, "built");
    const doorway = await Doorway.open(`/proc/${child.leafPid()}/ns/net`, port);
    void child.exited.finally(() => doorway.close());
    child.process.stdin?.end("go\n");
  } catch (error) {
    failed(`no way to the certificate service: ${messageOf(error)}`);
    child.signal("SIGKILL");
  }
}
