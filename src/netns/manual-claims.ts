// SPDX-License-Identifier: Apache-2.0
// What was captured by hand, in a file of the run directory. Root's own: its paths are opened by the next agent.
import { mkdirSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { RUN_FILE } from "../core/constants.ts";
import { AgentError, codeOf, messageOf } from "../core/errors.ts";
import type { ManualClaim, ManualClaims } from "../core/ports/manual.ts";
import { manualRequestSchema } from "../core/report/manual.ts";
import { atomicWrite, readBounded } from "../sys/files.ts";

const MAX_BYTES = 1 << 20;

const FILE = v.object({
  schema: v.literal(1),
  /** Of the kernel whose namespaces these are. */
  bootId: v.string(),
  claims: v.array(
    v.object({
      ...manualRequestSchema.entries,
      uid: v.pipe(v.string(), v.regex(/^manual-\d{1,20}$/)),
      netnsId: v.pipe(v.string(), v.regex(/^\d{1,20}:\d{1,20}$/)),
      state: v.picklist(["capturing", "captured", "leaving"]),
    }),
  ),
});

export class ManualClaimsFile implements ManualClaims {
  constructor(
    private readonly runDir: string,
    private readonly bootId: string,
  ) {}

  async read(): Promise<readonly ManualClaim[]> {
    let text: string;
    try {
      text = (await readBounded(this.#path, MAX_BYTES)).toString("utf8");
    } catch (error) {
      if (codeOf(error) === "ENOENT") return [];
      throw error;
    }
    try {
      const { bootId, claims } = v.parse(FILE, JSON.parse(text));
      return bootId === this.bootId ? claims : [];
    } catch (error) {
      throw new AgentError("CLAIMS_INVALID", `${this.#path}: ${messageOf(error)}`, "remove the file", { cause: error });
    }
  }

  async write(claims: readonly ManualClaim[]): Promise<void> {
    if (claims.length === 0) return await rm(this.#path, { force: true });
    mkdirSync(this.runDir, { recursive: true, mode: 0o750 });
    await atomicWrite(this.#path, `${JSON.stringify({ schema: 1, bootId: this.bootId, claims })}\n`, 0o600);
  }

  get #path(): string {
    return join(this.runDir, RUN_FILE.manual);
  }
}
