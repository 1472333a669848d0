// SPDX-License-Identifier: Apache-2.0
// How Cilium's agent on this node is set, as it has written it down itself.
import { AgentError, codeOf } from "../core/errors.ts";
import { readRegular } from "./files.ts";
import { rootedPath } from "./rooted.ts";

/** What cilium-agent writes at its start (option.DaemonConfig), on the node by a hostPath. */
const RUNTIME_CONFIG = "/var/run/cilium/state/agent-runtime-config.json";
const MAX_BYTES = 1 << 20;

/** undefined: this version does not write it. */
export interface CiliumSettings {
  /** Masquerading by eBPF (bpf.masquerade) and not by iptables. */
  readonly bpfMasquerade: boolean | undefined;
  /** Masquerading at all (enableIPv4Masquerade). */
  readonly masquerade: boolean | undefined;
  /** Packets of pods pass the node's own network stack (bpf.hostLegacyRouting). */
  readonly legacyRouting: boolean | undefined;
  /** The socket load balancer leaves pods alone (socketLB.hostNamespaceOnly). */
  readonly socketLbHostOnly: boolean | undefined;
}

/**
 * `root`: the node's root directory. undefined when Cilium has written nothing there.
 * @throws AgentError CILIUM_CONFIG; errors of the file system
 */
export async function ciliumSettings(root: string): Promise<CiliumSettings | undefined> {
  const path = rootedPath(root, RUNTIME_CONFIG);
  let text: string;
  try {
    text = (await readRegular(path, MAX_BYTES)).bytes.toString("utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR") return undefined;
    throw error;
  }
  let config: unknown;
  try {
    config = JSON.parse(text);
  } catch (cause) {
    throw new AgentError("CILIUM_CONFIG", `${path} is no JSON`, undefined, { cause });
  }
  const flag = (name: string) => {
    const value = typeof config === "object" && config !== null ? Reflect.get(config, name) : undefined;
    return typeof value === "boolean" ? value : undefined;
  };
  return {
    bpfMasquerade: flag("EnableBPFMasquerade"),
    masquerade: flag("EnableIPv4Masquerade"),
    legacyRouting: flag("EnableHostLegacyRouting"),
    socketLbHostOnly: flag("BPFSocketLBHostnsOnly"),
  };
}
