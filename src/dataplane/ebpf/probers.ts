// SPDX-License-Identifier: Apache-2.0
// Who may reach captured pods past ztunnel without any rule on the host: sockets of the node announce
// their connections to captured pods before the first packet, and the pod's interface lets those pass.
import type { Config } from "../../core/config/config.ts";
import { messageOf } from "../../core/errors.ts";
import { familyOf } from "../../core/ip.ts";
import type { NetnsHandle } from "../../core/ports/netns.ts";
import type { Logger } from "../../core/ports/telemetry.ts";
import type { NativeBinding } from "../../native/binding.ts";
import type { BpfNode } from "../../native/bpf.ts";
import type { Cgroup } from "../../sys/cgroup.ts";
import { type Cgroups, isWithin } from "./cgroups.ts";

export interface ProberOptions {
  readonly binding: NativeBinding;
  readonly bpf: BpfNode;
  readonly cgroups: Cgroups;
  /** The agent's own. */
  readonly own: Cgroup;
  /** The node's netns. */
  readonly host: NetnsHandle;
  readonly config: Pick<Config, "probeSources">;
  /** pid of kubelet in the node's /proc, if there is one now. */
  readonly kubelet: () => number | undefined;
  readonly logger: Logger;
}

const PINS = "probes";
const NONE = 0;
const KUBELET = 1;
const HOST = 2;
const TIMEOUT_MS = 1000;

export class ProberHooks {
  #kubeletCgroup: Cgroup | undefined;
  #told: string | undefined;
  /** What this agent has attached: cgroups by pin. */
  #attached: ReadonlyMap<string, Cgroup> = new Map();
  /** False after an `ensure` that did not come to its end: some may be let through that should not, or none. */
  #whole = false;

  constructor(private readonly options: ProberOptions) {}

  /**
   * Attaches what is missing; finds kubelet again when it was restarted. Idempotent. Returns what somebody had
   * taken away, each a sentence. @throws NativeError.
   */
  ensure(): readonly string[] {
    const { binding, bpf, cgroups, host, config } = this.options;
    this.#whole = false;
    const lost = this.#lost().filter(({ cgroup }) => cgroups.withId(cgroup.id) !== undefined);
    const attached = new Map<string, Cgroup>();
    const attach = (program: string, cgroup: Cgroup, pin: string) => {
      bpf.linkCgroup(program, cgroup.path, pin);
      attached.set(pin, cgroup);
    };
    const root = cgroups.root();
    const kubelet = this.#kubelet();
    if (kubelet !== undefined) attach("ambient_kubelet", kubelet, `${PINS}/kubelet-${kubelet.id}`);
    const wide = config.probeSources === "host" || kubelet === undefined;
    // At kubelet's own cgroup one of them is enough: there all of the node's sockets are kubelet's.
    if (wide && kubelet?.id !== root.id) attach("ambient_host", root, `${PINS}/host`);
    bpf.stateWrite({ hostCookie: binding.netnsCookie(host.fd), probers: wide ? HOST : KUBELET });
    if (!wide) bpf.unpin(`${PINS}/host`);
    for (const pin of bpf.pins(PINS)) {
      if (pin.startsWith("kubelet-") && pin !== `kubelet-${kubelet?.id}`) bpf.unpin(`${PINS}/${pin}`);
    }
    this.#attached = attached;
    this.#whole = true;
    this.#tell(kubelet, wide);
    return lost.map(({ pin, cgroup }) => `the program pinned as ${pin} was not attached to ${cgroup.path} any more`);
  }

  /** True while all is attached, and kubelet's cgroup is the one that is hooked. A restarted kubelet has another one. */
  get current(): boolean {
    return this.#whole && this.#kubeletCgroup !== undefined && this.#lost().length === 0;
  }

  #lost(): { readonly pin: string; readonly cgroup: Cgroup }[] {
    return [...this.#attached]
      .map(([pin, cgroup]) => ({ pin, cgroup }))
      .filter(({ pin, cgroup }) => this.options.bpf.link(pin)?.target !== cgroup.id);
  }

  /**
   * A connection of our own from the node to a captured pod, answered by a listener of our own there:
   * undefined when it came straight, from the address that it left with; else why announcing does not
   * work here (a CNI that rewrites source addresses, say).
   */
  async prove(netns: NetnsHandle, ips: readonly string[]): Promise<string | undefined> {
    const { binding, bpf, own } = this.options;
    // Ours would arrive, and kubelet's would not.
    if (!this.#whole) return "the programs that announce them are not attached";
    const link = bpf.holdCgroup("ambient_kubelet", own.path);
    try {
      for (const ip of ips) {
        const reason = await this.#proveOne(netns, ip);
        if (reason !== undefined) return reason;
      }
      return undefined;
    } catch (error) {
      return messageOf(error);
    } finally {
      binding.close(link);
    }
  }

  /** Nobody is let through any more. */
  remove(): void {
    const { bpf } = this.options;
    this.#whole = false;
    bpf.stateWrite({ probers: NONE });
    bpf.unpin(PINS);
    this.#attached = new Map();
  }

  async #proveOne(netns: NetnsHandle, ip: string): Promise<string | undefined> {
    const { binding, host } = this.options;
    const family = familyOf(ip);
    const listener = binding.tcpListen(netns.fd, { family, bind: { address: ip, port: 0 }, backlog: 1 });
    const open = [listener];
    try {
      const { port } = binding.localEndpoint(listener);
      const client = await binding.tcpConnect(host.fd, { family, address: ip, port, timeout: TIMEOUT_MS });
      open.push(client);
      const accepted = binding.tcpAccept(listener);
      if (accepted < 0) return `a connection of the node's to ${ip} was answered by somebody else`;
      open.push(accepted);
      const sent = binding.localEndpoint(client);
      const seen = binding.remoteEndpoint(accepted);
      if (sent.address === seen.address && sent.port === seen.port) return undefined;
      return `connections of the node's to ${ip} arrive from ${seen.address} port ${seen.port}, not from ${sent.address} port ${sent.port}`;
    } finally {
      for (const fd of open) binding.close(fd);
    }
  }

  #kubelet(): Cgroup | undefined {
    const known = this.#kubeletCgroup;
    const hooked = known !== undefined && this.options.bpf.link(`${PINS}/kubelet-${known.id}`)?.target === known.id;
    if (hooked) return known;
    const { kubelet, cgroups } = this.options;
    const pid = kubelet();
    this.#kubeletCgroup = pid === undefined ? undefined : cgroups.ofProcess(pid);
    return this.#kubeletCgroup;
  }

  #tell(kubelet: Cgroup | undefined, wide: boolean): void {
    const { cgroups, config, logger } = this.options;
    const shared = kubelet !== undefined && isWithin(cgroups.pods(), kubelet);
    const text = `${kubelet?.path} ${wide} ${shared}`;
    if (this.#told === text) return;
    this.#told = text;
    if (config.probeSources === "host") return;
    if (kubelet === undefined) {
      logger.warn("kubelet's cgroup is not found: every process of the node may reach captured pods until it is");
    } else if (shared) {
      logger.warn("kubelet shares its cgroup with the node's other processes, which count as kubelet", {
        cgroup: kubelet.path,
      });
    }
  }
}
