// SPDX-License-Identifier: Apache-2.0
import { POD_TABLE } from "../../core/constants.ts";
import { AgentError } from "../../core/errors.ts";
import type { NativeBinding, NftTable } from "../../native/binding.ts";
import { createNetns, type HeldNetns } from "../../native/netns.ts";
import { nft } from "./nft.ts";
import { rulesDigest } from "./observe.ts";
import { replaceText } from "./text.ts";

/** What this kernel shows after it has read a body. */
export interface Reference {
  readonly rules: string;
  readonly table: NftTable;
}

/** Pods with annotations of their own may make many bodies; the oldest are read again when needed. */
const MAX_REFERENCES = 256;

/**
 * Reads each distinct body once into a scratch netns, so that a pod's table can be told right from
 * wrong by a dump. Pods with equal answers share a body: on most nodes there are one or two.
 */
export class References {
  readonly #known = new Map<string, Promise<Reference>>();
  readonly #settled = new Map<string, Reference>();
  #last: Promise<unknown> = Promise.resolve();
  #scratch: HeldNetns | undefined;

  constructor(private readonly binding: NativeBinding) {}

  /** @throws AgentError NFT_FAILED | NFT_MISSING. */
  of(body: string): Promise<Reference> {
    const known = this.#known.get(body);
    if (known !== undefined) return known;
    // One after the other: they share the scratch netns and the table's name.
    const reading = this.#last.then(() => this.#read(body));
    this.#last = reading.catch(() => undefined);
    this.#known.set(body, reading);
    reading.then(
      (reference) => this.#settled.set(body, reference),
      () => this.#known.delete(body),
    );
    this.#trim();
    return reading;
  }

  /** The reference if it has been read already. */
  known(body: string): Reference | undefined {
    return this.#settled.get(body);
  }

  close(): void {
    this.#scratch?.close();
    this.#scratch = undefined;
  }

  async #read(body: string): Promise<Reference> {
    this.#scratch ??= createNetns();
    await nft(this.#scratch.fd, replaceText(POD_TABLE, "reference", body));
    const table = this.binding.nftTable(this.#scratch.fd, "inet", POD_TABLE);
    if (table === undefined) throw new AgentError("NFT_FAILED", "nft reported success, but the kernel has no table");
    return { rules: rulesDigest(table), table };
  }

  #trim(): void {
    for (const body of this.#known.keys()) {
      if (this.#known.size <= MAX_REFERENCES) return;
      this.#known.delete(body);
      this.#settled.delete(body);
    }
  }
}
