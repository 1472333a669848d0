// SPDX-License-Identifier: Apache-2.0
import { createWriteStream, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import type { SandboxNode } from "../../../src/sandbox/node.ts";
import { until } from "../../../src/sandbox/until.ts";
import type { Child } from "../../../src/sys/child.ts";
import { CriClient } from "./cri.ts";
import { PAUSE_IMAGE } from "./images.ts";

const SOCKET = "/run/containerd/containerd.sock";
/** Where Debian has the plugins; containerd looks in one directory only, and ours is installed there. */
const DEBIAN_PLUGINS = "/usr/lib/cni";
/** It syncs its databases to disk first, which somebody else may be writing to. */
const START_MS = 60_000;
const PRIMARY_PLUGINS = ["bridge", "host-local", "loopback"] as const;

/** A runtime handler whose pods get the node's network from a directory of its own, without our plugin. */
export const UNCHAINED = { handler: "unchained", confDir: "/etc/cni/unchained.d" } as const;

const UNCHAINED_RUNTIME = `
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.${UNCHAINED.handler}]
  runtime_type = "io.containerd.runc.v2"
  cni_conf_dir = "${UNCHAINED.confDir}"
`;

/**
 * Debian's containerd on a sandbox node: root, state, sockets and configuration are the node's own. Images and
 * sandboxes outlive `kill`, like those of a real node; images also the node's reboot.
 */
export class Containerd {
  readonly log: string;
  private child: Child | undefined;
  private client: CriClient | undefined;

  constructor(
    private readonly node: SandboxNode,
    { unchained = false } = {},
  ) {
    this.log = node.path("containerd.log");
    mkdirSync(node.path("containerd"), { recursive: true });
    writeFileSync(this.configPath, config(node.path("containerd"), unchained));
    for (const name of PRIMARY_PLUGINS) symlinkSync(`${DEBIAN_PLUGINS}/${name}`, node.path("opt/cni/bin", name));
  }

  private get configPath(): string {
    return this.node.path("containerd/config.toml");
  }

  /** @throws Error when it does not run. */
  get cri(): CriClient {
    if (this.client === undefined) throw new Error("containerd does not run");
    return this.client;
  }

  /** Starts it, the first time, after `kill`, or after the node's reboot; resolves when CRI answers. */
  async start(): Promise<void> {
    const log = createWriteStream(this.log, { flags: "a" });
    log.on("error", () => undefined);
    const child = this.node.spawn(["containerd", "--config", this.configPath], {
      cgroup: this.node.cgroups.system("containerd"),
      env: { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" },
      stdio: ["ignore", "pipe", "pipe"],
    });
    child.process.stdout?.pipe(log, { end: false });
    child.process.stderr?.pipe(log, { end: false });
    void child.exited.finally(() => log.end());
    this.child = child;
    this.client?.close();
    // Through /proc: the node's /run is in its mount namespace.
    const client = new CriClient(`/proc/${this.node.pid}/root${SOCKET}`);
    this.client = client;
    await until(
      "containerd answers",
      async () => {
        if (!child.running) throw new Error(`containerd ended: ${this.tail()}`);
        return client.call("version", {}, 1000).then(
          () => true,
          () => false,
        );
      },
      START_MS,
    );
    // Its shims and plugins would be taken for it.
    child.pinLeaf();
  }

  /** kill -9: containers and their shims go on without it. */
  async kill(): Promise<void> {
    this.child?.signal("SIGKILL");
    await this.child?.exited;
    this.child = undefined;
  }

  /** Forgets a containerd that went with its node. */
  close(): void {
    this.client?.close();
    this.client = undefined;
    this.child = undefined;
  }

  async importImage(archive: string): Promise<void> {
    await this.images(["import", archive]);
  }

  /** Gives an image a second name. */
  async tagImage(image: string, name: string): Promise<void> {
    await this.images(["tag", image, name]);
  }

  private async images(argv: readonly string[]): Promise<void> {
    const ctr = ["ctr", "--address", SOCKET, "--namespace", "k8s.io", "images"];
    await this.node.run([...ctr, ...argv], { timeoutMs: 60_000 });
  }

  /** The last lines of its log. */
  tail(lines = 30): string {
    return readFileSync(this.log, "utf8").split("\n").slice(-lines).join("\n");
  }
}

function config(root: string, unchained: boolean): string {
  return `version = 2
root = "${root}/root"
state = "/run/containerd"
# What this machine's kernel or our purpose has no use for only costs time at every start.
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "${SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
  path = "${root}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${PAUSE_IMAGE}"
  # Inside a pid namespace of a session, nobody may be less likely to be killed than we are.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
${unchained ? UNCHAINED_RUNTIME : ""}`;
}
