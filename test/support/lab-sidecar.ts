// SPDX-License-Identifier: Apache-2.0
// The sandbox's stand-in for a sidecar in a netns of the lab, and the check that a sidecar pod makes itself.
import { fileURLToPath } from "node:url";
import { SIDECAR_PORT } from "../../src/core/constants.ts";
import type { Endpoint } from "../../src/native/binding.ts";
import { native } from "../../src/native/load.ts";
import type { HeldNetns } from "../../src/native/netns.ts";
import type { SidecarEvent, SidecarOptions } from "../../src/sandbox/sidecar/options.ts";
import { SidecarRemote } from "../../src/sandbox/sidecar/remote.ts";
import { Child } from "../../src/sys/child.ts";

const MAIN = fileURLToPath(new URL("../../src/main.ts", import.meta.url));
const DEADLINE_MS = 20_000;

function start(netns: HeldNetns, argv: readonly string[], stderr: "inherit" | "ignore" = "inherit"): Child {
  const program = [process.execPath, "--import", "tsx", MAIN, ...argv];
  return new Child(["nsenter", "--net=/proc/self/fd/3", "--", ...program], {
    stdio: ["ignore", "pipe", stderr, netns.fd],
  });
}

export class LabSidecar extends SidecarRemote {
  private constructor(
    private readonly netns: HeldNetns,
    child: Child,
  ) {
    super(child);
  }

  static async start(netns: HeldNetns, options: Partial<SidecarOptions> = {}): Promise<LabSidecar> {
    const all: SidecarOptions = { uid: 1337, gid: 1337, transparent: false, ipv6: true, services: {}, ...options };
    const sidecar = new LabSidecar(netns, start(netns, ["sandbox-sidecar", JSON.stringify(all)]));
    await sidecar.until(({ event }) => event === "ready");
    return sidecar;
  }

  /** One that is root of group 1337, as in TPROXY mode. */
  static startTransparent(netns: HeldNetns, options: Partial<SidecarOptions> = {}): Promise<LabSidecar> {
    return LabSidecar.start(netns, { ...options, uid: 0, transparent: true });
  }

  /**
   * What has come to its listeners since `forget`, oldest first: "15001 10.0.0.1:80". A connection of our own
   * goes last, so that whatever came before it has been told.
   */
  async seen(): Promise<string[]> {
    const own = `127.0.0.1:${SIDECAR_PORT.tunnel}`;
    const isOwn = (event: SidecarEvent) => event.event === "accepted" && event.original === own;
    const [address, port] = ["127.0.0.1", SIDECAR_PORT.tunnel];
    const fd = await native().tcpConnect(this.netns.fd, { family: 4, address, port, timeout: DEADLINE_MS });
    native().close(fd);
    await this.until(isOwn);
    return this.events.flatMap((one) =>
      one.event === "accepted" && !isOwn(one) ? [`${one.port} ${one.original}`] : [],
    );
  }

  /** Peers of connections to this destination. */
  peersOf({ address, port }: Endpoint): string[] {
    const wanted = `${address}:${port}`;
    return this.events.flatMap((one) => (one.event === "accepted" && one.original === wanted ? [one.peer] : []));
  }

  get questions(): string[] {
    return this.events.flatMap((one) => (one.event === "question" ? [`${one.protocol} ${one.text}`] : []));
  }

  async close(): Promise<void> {
    await this.child.end(200);
  }
}

/** Exit status of the pod's own check: 0 when it is redirected, 126 after 5 s when not. */
export async function validate(netns: HeldNetns, family: 4 | 6): Promise<number | null> {
  const child = start(netns, ["sandbox-validation", String(family)], "ignore");
  child.process.stdout?.resume();
  return (await child.exited).code;
}
