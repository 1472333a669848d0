// SPDX-License-Identifier: Apache-2.0
import type { Logger } from "../core/ports.ts";
import type { NativeBinding } from "../native/binding.ts";
import { EbpfEngine, type EbpfOptions } from "./ebpf/engine.ts";
import type { Engine } from "./engine.ts";
import { IptablesEngine, type IptablesOptions } from "./iptables/engine.ts";
import { NftablesEngine } from "./nftables/engine.ts";

export interface EngineOptions {
  readonly binding: NativeBinding;
  readonly logger: Logger;
  readonly host: Pick<EbpfOptions, "bpffs" | "cgroups">;
  /** Which iptables; undefined: what works here. */
  readonly iptables: IptablesOptions["variant"];
}

/** Every engine of this version. */
export function allEngines({ binding, logger, host, iptables }: EngineOptions): readonly Engine[] {
  return [
    new EbpfEngine({ binding, logger, ...host }),
    new NftablesEngine(binding, logger),
    new IptablesEngine(binding, logger, { variant: iptables }),
  ];
}
