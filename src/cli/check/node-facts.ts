// SPDX-License-Identifier: Apache-2.0
import { join } from "node:path";
import { readConfDir } from "../../../install/conf-dir.ts";
import { inUse } from "../../../install/primary.ts";
import { AgentError, codeOf } from "../../core/errors.ts";
import type { PodReport } from "../../core/report/pods.ts";
import { NodeCgroups } from "../../dataplane/ebpf/cgroups.ts";
import { readPinned } from "../../dataplane/ebpf/pinned.ts";
import { foreignRules } from "../../dataplane/examine.ts";
import { readText } from "../../kube/credentials.ts";
import { credentialsFor, SERVICE_ACCOUNT_DIR } from "../../kube/credentials-for.ts";
import { readPolicies } from "../../kube/policy-reader.ts";
import { serverTime } from "../../kube/server-time.ts";
import { authorityEnd, tokenLife } from "../../kube/service-account.ts";
import type { EffectiveProgram } from "../../native/binding.ts";
import { type HeldNetns, openNetns } from "../../native/netns.ts";
import { findHostNetns } from "../../netns/host.ts";
import { findResidents, type Resident } from "../../netns/residents.ts";
import { ciliumSettings } from "../../sys/cilium.ts";
import { HostMounts } from "../../sys/mounts.ts";
import { Proc } from "../../sys/proc.ts";
import type { NodeView } from "../source/kernel/node-view.ts";
import { SILENT } from "../source/silent.ts";
import { readBranchAddresses } from "./branch-rules.ts";
import type { AgentCredentials, ClusterNetwork, Conntrack, Facts, PinnedPods, PodsPrograms } from "./facts.ts";
import { readNetwork } from "./node-network.ts";

/** For each question to the API server, in ms. */
const API_TIMEOUT_MS = 3000;
const OVN_INTERFACE = "ovn-k8s-mp0";
const OVN_PROGRAM = "ovnkube";
const AWS_PLUGIN = "aws-cni";

/** The facts of the node that a view shows. */
export class NodeFacts implements Facts {
  readonly #view: NodeView;
  readonly #known = new Map<string, unknown>();

  readonly #kernelPods: () => Promise<readonly PodReport[]>;

  constructor(view: NodeView, kernelPods: () => Promise<readonly PodReport[]>) {
    this.#view = view;
    this.#kernelPods = kernelPods;
  }

  now(): number {
    return Date.now();
  }

  conntrack(): Conntrack | undefined {
    return this.#inHost((host) => {
      const read = (what: string) => Number(this.#sysctl(host, `net/netfilter/nf_conntrack_${what}`));
      try {
        return { count: read("count"), max: read("max") };
      } catch (error) {
        if (codeOf(error) === "ENOENT") return undefined;
        throw error;
      }
    });
  }

  clock() {
    return this.#view.binding.clockState();
  }

  async serverTime() {
    return serverTime(await this.#credentials().load(), API_TIMEOUT_MS);
  }

  podsPrograms(): PodsPrograms {
    return this.#once("podsPrograms", () => {
      const { path } = this.#cgroups().pods();
      const { count } = this.#view.binding.bpfCgroupFlags(path, "ambient_connect4");
      return { cgroup: path, connect: this.#connectPrograms(path), attachedHere: count };
    });
  }

  network() {
    return this.#once("network", async () =>
      readNetwork(this.#view, await this.#kernelPods(), (pid) => {
        const cgroup = this.#cgroups().ofProcess(Number(pid));
        return cgroup === undefined ? undefined : this.#connectPrograms(cgroup.path);
      }),
    );
  }

  clusterNetwork() {
    return this.#once("clusterNetwork", () => this.#readClusterNetwork());
  }

  branchAddresses() {
    return this.#once("branchAddresses", async () => {
      const pods = await this.#kernelPods();
      return this.#inHost(({ fd }) => readBranchAddresses(this.#view.binding, fd, pods));
    });
  }

  cilium() {
    const { hostRoot, procDir } = this.#view.config;
    return this.#once("cilium", () => ciliumSettings(hostRoot === "/" ? "/" : join(procDir, "1/root")));
  }

  async foreignRules(netns: string): Promise<readonly string[] | undefined> {
    const { binding, residents, config } = this.#view;
    const pid = await residents.processIn(netns);
    if (pid === undefined) return undefined;
    const handle = openNetns(new Proc(config.procDir).netnsPath(pid));
    try {
      return handle.id === netns ? foreignRules(binding, handle.fd) : undefined;
    } finally {
      handle.close();
    }
  }

  async pinned(): Promise<PinnedPods | string> {
    const { binding, residents, config } = this.#view;
    const { pods, obstacle } = readPinned(binding, config.procDir);
    if (obstacle !== undefined) return obstacle;
    const staleAmong = async (known: Promise<readonly Resident[]>): Promise<number> => {
      const all = await known;
      try {
        const living = new Set(all.map(({ netns }) => binding.netnsCookie(netns.fd)));
        return [...pods.keys()].filter((cookie) => !living.has(cookie)).length;
      } finally {
        for (const { netns } of all) netns.close();
      }
    };
    // A pod may have been pinned since the node's processes were gone through.
    const stale = (await staleAmong(residents.all())) && (await staleAmong(findResidents(config.procDir)));
    return { pods: pods.size, stale };
  }

  async credentials(): Promise<AgentCredentials> {
    const { kubeconfig } = this.#view.config;
    if (kubeconfig !== undefined) {
      throw new AgentError("KUBE_CREDENTIALS", `${kubeconfig} is used: only a service account's token is looked at`);
    }
    const token = await readText(join(SERVICE_ACCOUNT_DIR, "token"));
    const authority = await readText(join(SERVICE_ACCOUNT_DIR, "ca.crt"));
    return { token: tokenLife(token), authorityEnd: authorityEnd(authority) };
  }

  policies() {
    return this.#once("policies", () => {
      const { nodeName } = this.#view.config;
      if (nodeName === "") throw new AgentError("NODE_NAME", "the node's name is not known: set NODE_NAME");
      return readPolicies(this.#credentials(), nodeName, API_TIMEOUT_MS, SILENT);
    });
  }

  async #readClusterNetwork(): Promise<ClusterNetwork> {
    const { config, binding } = this.#view;
    const conf = inUse(await readConfDir(config.cniNetDir), config.cniConfName)?.conf;
    const { interfaces, earlyDemux } = this.#inHost((host) => ({
      interfaces: binding.links(host.fd).map(({ name }) => name),
      earlyDemux: this.#sysctl(host, "net/ipv4/tcp_early_demux") !== "0",
    }));
    const aws = conf?.plugins.find(({ type }) => type === AWS_PLUGIN);
    const mode = aws?.podSGEnforcingMode;
    return {
      interfaces,
      types: conf?.types ?? [],
      // As the plugin: a configuration without it is strict.
      podSecurityGroups: aws === undefined ? undefined : typeof mode === "string" && mode !== "" ? mode : "strict",
      ovnGateway: interfaces.includes(OVN_INTERFACE) ? (this.#ovnGateway() ?? "unknown") : undefined,
      earlyDemux,
    };
  }

  /** From the arguments of OVN-Kubernetes on this node. */
  #ovnGateway(): string | undefined {
    const proc = new Proc(this.#view.config.procDir);
    for (const pid of proc.pids()) {
      try {
        if (proc.stat(pid).comm !== OVN_PROGRAM) continue;
        const [, mode] = /--?gateway-mode[= ](\w+)/.exec(proc.argv(pid).join(" ")) ?? [];
        if (mode !== undefined) return mode;
      } catch {
        // Gone since the directory was read.
      }
    }
    return undefined;
  }

  #connectPrograms(cgroup: string): readonly EffectiveProgram[] {
    return this.#view.binding.bpfCgroupPrograms(cgroup, "ambient_connect4");
  }

  #cgroups(): NodeCgroups {
    return this.#once("cgroups", () => {
      const mount = new HostMounts(this.#view.config.procDir).cgroup2();
      if (mount.path === undefined) throw new AgentError("CGROUP_UNREACHABLE", mount.reason);
      return new NodeCgroups(mount, this.#view.config.procDir);
    });
  }

  #credentials() {
    const { config, environment } = this.#view;
    return credentialsFor({ kubeconfig: config.kubeconfig, environment });
  }

  #sysctl(netns: HeldNetns, key: string): string {
    return this.#view.binding.sysctlGet(netns.fd, key).trim();
  }

  #inHost<T>(use: (host: HeldNetns) => T): T {
    const { handle: host } = findHostNetns(new Proc(this.#view.config.procDir), false);
    try {
      return use(host);
    } finally {
      host.close();
    }
  }

  #once<T>(name: string, make: () => T): T {
    if (!this.#known.has(name)) this.#known.set(name, make());
    // The entry of a name is what `make` of that name has made.
    return this.#known.get(name) as T;
  }
}
