// SPDX-License-Identifier: Apache-2.0
import type { Logger } from "../core/ports.ts";
import type { NativeBinding } from "../native/binding.ts";
import { EbpfEngine, type EbpfOptions } from "./ebpf/engine.ts";
import type { Engine } from "./engine.ts";
import { NftablesEngine } from "./nftables/engine.ts";

/** Every engine of this version. */
export function allEngines(
  binding: NativeBinding,
  logger: Logger,
  host: Pick<EbpfOptions, "bpffs" | "cgroups">,
): readonly Engine[] {
  return [new EbpfEngine({ binding, logger, ...host }), new NftablesEngine(binding, logger)];
}
