// SPDX-License-Identifier: Apache-2.0
// What upstream's istio-cni leaves on the node when its image is swapped: rules that give probes another source,
// and the sets of pods that they are for. Beside ours they would still hit pods that are not theirs any more.
import { codeOf } from "../../core/errors.ts";
import type { NetnsHandle } from "../../core/ports/netns.ts";
import type { Logger } from "../../core/ports/telemetry.ts";
import type { AddressFamily, NativeBinding } from "../../native/binding.ts";
import { restore } from "../iptables/restore.ts";
import type { Variant } from "../iptables/ruleset.ts";
import { chainNames } from "../netfilter/tables.ts";
import { nft } from "../nftables/nft.ts";
import { removeText } from "../nftables/text.ts";
import { NAT_TABLE, POSTROUTING_CHAIN, PROBE_SETS } from "./names.ts";

interface Place {
  readonly variant: Variant;
  readonly family: AddressFamily;
}

const FAMILIES: readonly AddressFamily[] = [4, 6];
const FAMILY_OF: Readonly<Record<string, AddressFamily>> = { ip: 4, ip6: 6 };
/** An agent of upstream's that was killed may have put its jump in again. */
const MAX_JUMPS = 8;

export class UpstreamHost {
  constructor(
    private readonly binding: NativeBinding,
    private readonly host: NetnsHandle,
    private readonly logger: Logger,
  ) {}

  /** No fork. On a node with many services some milliseconds. */
  get present(): boolean {
    return this.#hasTable() || this.#places().length > 0;
  }

  /**
   * Rules first, then sets; the chain last, so that whoever comes after a kill finds it. Idempotent.
   * @throws AgentError | NativeError. What was done by then stays done.
   */
  async remove(): Promise<void> {
    const places = this.#places();
    for (const place of places) await this.#emptyChain(place);
    if (places.length > 0) this.#destroySets();
    for (const { variant, family } of places) {
      await restore(variant, family, this.host.fd, `*nat\n-X ${POSTROUTING_CHAIN}\nCOMMIT\n`);
    }
    if (this.#hasTable()) await nft(this.host.fd, removeText(NAT_TABLE));
    this.logger.info("istio-cni's rules and sets of the node are removed", { chains: places.length });
  }

  async #emptyChain({ variant, family }: Place): Promise<void> {
    const commit = (line: string) => restore(variant, family, this.host.fd, `*nat\n${line}\nCOMMIT\n`);
    await commit(`-F ${POSTROUTING_CHAIN}`);
    for (let jumps = 0; jumps < MAX_JUMPS; jumps++) {
      try {
        await commit(`-D POSTROUTING -j ${POSTROUTING_CHAIN}`);
      } catch {
        // No more of them; one that is worded otherwise keeps the chain, whose removal then fails and says so.
        return;
      }
    }
  }

  #destroySets(): void {
    for (const name of PROBE_SETS) {
      try {
        this.binding.ipsetDestroy(this.host.fd, name);
      } catch (error) {
        if (codeOf(error) !== "EBUSY") throw error;
        this.logger.warn("a set of istio-cni's is in use by somebody else and stays", { set: name });
      }
    }
  }

  #hasTable(): boolean {
    return chainNames(this.binding, this.host.fd).some(({ family, table }) => family === "inet" && table === NAT_TABLE);
  }

  #places(): Place[] {
    const places: Place[] = chainNames(this.binding, this.host.fd)
      .filter(({ table, name }) => table === "nat" && name === POSTROUTING_CHAIN)
      .flatMap(({ family: name }) => {
        const family = FAMILY_OF[name];
        return family === undefined ? [] : [{ variant: "nft", family }];
      });
    for (const family of FAMILIES) {
      const nat = this.binding.xtables(this.host.fd, family).find(({ name }) => name === "nat");
      if (nat?.chains.some(({ name }) => name === POSTROUTING_CHAIN)) places.push({ variant: "legacy", family });
    }
    return places;
  }
}
