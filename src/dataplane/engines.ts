// SPDX-License-Identifier: Apache-2.0
import type { Logger } from "../core/ports/telemetry.ts";
import type { NativeBinding } from "../native/binding.ts";
import type { Engine } from "./engine.ts";
import { IptablesEngine, type IptablesOptions } from "./iptables/engine.ts";
import { NftablesEngine } from "./nftables/engine.ts";

/** What a pod gets that eBPF can't capture; `variant`: which iptables, undefined for what works here. */
export function netfilterEngines(
  binding: NativeBinding,
  logger: Logger,
  variant: IptablesOptions["variant"],
): readonly Engine[] {
  return [new NftablesEngine(binding, logger), new IptablesEngine(binding, logger, { variant })];
}
