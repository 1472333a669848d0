// SPDX-License-Identifier: Apache-2.0
// The engines that the tests of behaviour run with, one after the other: whatever steers, the pod's
// traffic must see the same.
import type { EngineName } from "../../src/core/ports/dataplane.ts";
import type { Logger } from "../../src/core/ports/telemetry.ts";
import type { Engine } from "../../src/dataplane/engine.ts";
import { IptablesEngine } from "../../src/dataplane/iptables/engine.ts";
import { NftablesEngine } from "../../src/dataplane/nftables/engine.ts";
import type { NativeBinding } from "../../src/native/binding.ts";
import { labEbpf } from "./lab-bpf.ts";

export interface LabEngine {
  /** In test names. */
  readonly name: string;
  readonly engine: EngineName;
  /** The engine first. */
  make(binding: NativeBinding, logger: Logger): readonly Engine[];
  /** Parts of what its self-test says is lost on a node where everything may be set. */
  readonly losses: readonly string[];
  /** An application's listener with an SO_MARK of its own is reached where sysctls can be set. */
  readonly reachesMarkedListeners: boolean;
  /** Inbound SYNs in fragments are put together before they are looked at. */
  readonly takesFragmentedSyns: boolean;
  /** Nothing of it works where a pod's sysctls can't be set. */
  readonly needsSysctls: boolean;
}

const MARKED_LISTENERS = "whose listener has an SO_MARK of its own is not reachable";

export const EBPF: LabEngine = {
  name: "ebpf",
  engine: "ebpf",
  // A pod that eBPF can't capture is an nftables pod.
  make: (binding, logger) => [labEbpf(binding), new NftablesEngine(binding, logger)],
  losses: [],
  reachesMarkedListeners: true,
  takesFragmentedSyns: false,
  needsSysctls: true,
};

export const NFTABLES: LabEngine = {
  name: "nftables",
  engine: "nftables",
  make: (binding, logger) => [new NftablesEngine(binding, logger)],
  losses: [],
  reachesMarkedListeners: true,
  takesFragmentedSyns: true,
  needsSysctls: false,
};

export const IPTABLES_NFT: LabEngine = {
  name: "iptables-nft",
  engine: "iptables",
  make: (binding, logger) => [new IptablesEngine(binding, logger, { variant: "nft" })],
  losses: [MARKED_LISTENERS],
  reachesMarkedListeners: false,
  takesFragmentedSyns: true,
  needsSysctls: false,
};

export const IPTABLES_LEGACY: LabEngine = {
  name: "iptables-legacy",
  engine: "iptables",
  make: (binding, logger) => [new IptablesEngine(binding, logger, { variant: "legacy" })],
  losses: [MARKED_LISTENERS, "legacy iptables rules change"],
  reachesMarkedListeners: false,
  takesFragmentedSyns: true,
  needsSysctls: false,
};

export const ENGINES: readonly LabEngine[] = [EBPF, NFTABLES, IPTABLES_NFT, IPTABLES_LEGACY];
