// SPDX-License-Identifier: Apache-2.0
import { codeOf, messageOf } from "../../core/errors.ts";
import type { Proof, ProofRow } from "../../core/ports/proof.ts";
import type { AddressFamily } from "../../native/binding.ts";

/** What a row found: what was seen, and whether that is as it should be. */
export interface Finding {
  readonly result: Proof["result"];
  readonly evidence: string;
}

export const proved = (evidence: string): Finding => ({ result: "proved", evidence });
export const failed = (evidence: string): Finding => ({ result: "failed", evidence });
export const skipped = (evidence: string): Finding => ({ result: "skipped", evidence });

/** Runs one row; an error that it did not foresee is a failure with the error as evidence. */
export async function prove(
  row: ProofRow,
  family: AddressFamily,
  find: () => Finding | Promise<Finding>,
): Promise<Proof> {
  const began = performance.now();
  let finding: Finding;
  try {
    finding = await find();
  } catch (error) {
    finding = failed(`${codeOf(error)}: ${messageOf(error)}`);
  }
  return { row, family, ...finding, milliseconds: performance.now() - began };
}

/** Nothing inside the netns shows what such a pod's traffic does. */
export async function* sandboxed(family: AddressFamily, ip: string): AsyncGenerator<Proof> {
  const why: Finding = skipped(
    `${ip} is on no interface of the pod's netns: somebody took it away, or its runtime (gVisor, Kata) handles packets itself; nothing here can prove what that does`,
  );
  for (const row of ["outbound", "inbound"] as const) yield prove(row, family, () => why);
}
