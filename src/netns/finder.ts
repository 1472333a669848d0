// SPDX-License-Identifier: Apache-2.0
import { AgentError, codeOf, messageOf } from "../core/errors.ts";
import { canonicalIp } from "../core/ip.ts";
import { type Pod, podKey } from "../core/pod.ts";
import type { NetnsFinder, NetnsHandle, NetnsId } from "../core/ports/netns.ts";
import type { Logger } from "../core/ports/telemetry.ts";
import { native } from "../native/load.ts";
import { type HeldNetns, openNetns } from "../native/netns.ts";
import { Proc } from "../sys/proc.ts";
import { cgroupOwner } from "./cgroup.ts";
import { ancestorsOf, findHostNetns, forbiddenIds } from "./host.ts";
import { openNetnsPath } from "./path.ts";
import { portions, type Sighting, scan } from "./scan.ts";

export interface FinderOptions {
  /** Prefix of the host's file system, "/" on the host itself. */
  readonly hostRoot: string;
  /** The node's proc. */
  readonly procDir: string;
  /** False: the agent's own network is the node's. */
  readonly switchToHostNetns: boolean;
}

/** Finds pods' network namespaces through the node's /proc. */
export class ProcNetnsFinder implements NetnsFinder {
  readonly #proc: Proc;
  readonly #hostRoot: string;
  readonly #host: HeldNetns;
  readonly #forbidden: ReadonlySet<string>;
  readonly #ancestors: ReadonlySet<string>;
  readonly #logger: Logger;

  /** @throws AgentError HOST_NETNS_UNKNOWN: without it, the node's own netns could be taken for a pod's */
  constructor(options: FinderOptions, logger: Logger) {
    this.#proc = new Proc(options.procDir);
    this.#hostRoot = options.hostRoot;
    this.#logger = logger;
    this.#ancestors = ancestorsOf(this.#proc);
    const { handle, source } = findHostNetns(this.#proc, !options.switchToHostNetns);
    this.#host = handle;
    this.#forbidden = forbiddenIds(handle, this.#proc);
    logger.info("found the node's network namespace", { netns: handle.id, source });
  }

  host(): NetnsHandle {
    return this.#host;
  }

  /** Releases the host's netns; for tests and a clean exit. */
  close(): void {
    this.#host.close();
  }

  open(hostPath: string, handed?: NetnsHandle): NetnsHandle {
    const netns = handed ?? openNetnsPath(hostPath, this.#hostRoot, this.#proc);
    if (!this.#forbidden.has(netns.id)) return netns;
    netns.close();
    throw new AgentError(
      "NETNS_IS_HOST",
      `${JSON.stringify(hostPath)} is the network namespace of the node itself`,
      "a pod with hostNetwork cannot be in the mesh",
    );
  }

  missing(netns: NetnsHandle, ips: readonly string[]): readonly string[] {
    const carried = carriedBy(netns);
    return ips.filter((ip) => !carried.has(ip));
  }

  async find(pods: readonly Pod[]): Promise<Map<string, NetnsHandle>> {
    const found = new Map<string, NetnsHandle>();
    // Without an address nothing could tell the pod's netns from one its process happens to be in.
    const wanted = pods.filter((pod) => pod.ips.length > 0 && !pod.hostNetwork);
    if (wanted.length === 0) return found;
    const sightings = await scan(this.#proc, wanted, this.#forbidden, this.#ancestors);
    try {
      const taken = new Set<string>();
      const portion = portions();
      for (const pod of wanted) {
        await portion();
        const netns = this.#claim(pod, sightings.get(pod.uid) ?? [], taken);
        if (netns !== undefined) found.set(pod.uid, netns);
      }
      return found;
    } catch (error) {
      for (const netns of found.values()) netns.close();
      throw error;
    }
  }

  async inhabited(): Promise<ReadonlySet<NetnsId>> {
    const found = new Set<NetnsId>();
    const portion = portions();
    for (const pid of this.#proc.pids()) {
      await portion();
      try {
        found.add(this.#proc.netnsId(pid));
      } catch (error) {
        // Ended since the directory was read, or a zombie, or (pid 1 on some nodes) more privileged than we are.
        if (["ENOENT", "ESRCH"].includes(codeOf(error)) || !this.#isPods(pid)) continue;
        throw error;
      }
    }
    for (const id of this.#forbidden) found.delete(id);
    return found;
  }

  #isPods(pid: string): boolean {
    try {
      return cgroupOwner(this.#proc.cgroup(pid), this.#ancestors) !== undefined;
    } catch {
      return false;
    }
  }

  /** The netns of the pod's oldest process among those that carry one of its addresses. */
  #claim(pod: Pod, sightings: readonly Sighting[], taken: Set<string>): HeldNetns | undefined {
    for (const sighting of sightings) {
      if (taken.has(sighting.netns)) continue;
      const netns = this.#openSighting(pod, sighting);
      if (netns === undefined) continue;
      taken.add(netns.id);
      if (sightings.length > 1) {
        this.#logger.debug("processes of the pod live in several network namespaces; the oldest counts", {
          pod: podKey(pod),
          netns: netns.id,
          others: sightings.filter((other) => other !== sighting).map((other) => other.netns),
        });
      }
      return netns;
    }
    return undefined;
  }

  #openSighting(pod: Pod, sighting: Sighting): HeldNetns | undefined {
    const reject = (why: string): undefined => {
      this.#logger.debug("not the pod's network namespace", { pod: podKey(pod), netns: sighting.netns, why });
      return undefined;
    };
    for (const pid of sighting.pids) {
      let netns: HeldNetns | undefined;
      try {
        netns = openNetns(this.#proc.netnsPath(pid));
        // The pid may belong to another process by now.
        if (netns.id === sighting.netns) {
          if (carriesOneOf(netns, pod.ips)) return netns;
          netns.close();
          return reject(`it has none of the addresses ${pod.ips.join(", ")}`);
        }
        netns.close();
      } catch (error) {
        netns?.close();
        reject(messageOf(error));
      }
    }
    return reject("none of its processes is left");
  }
}

/** Whether an interface of the netns has one of these (canonical) addresses. */
function carriesOneOf(netns: HeldNetns, ips: readonly string[]): boolean {
  const carried = carriedBy(netns);
  return ips.some((ip) => carried.has(ip));
}

/** Addresses of its interfaces, canonical. */
function carriedBy(netns: NetnsHandle): ReadonlySet<string> {
  return new Set(
    native()
      .addresses(netns.fd)
      .map(({ address }) => canonicalIp(address)),
  );
}
