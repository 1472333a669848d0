// SPDX-License-Identifier: Apache-2.0
// What a step would change, for people to read and to compare.

export interface PlannedChange {
  /** What would be written, and where: `rule in the pod`, `nft -f - in the pod`, ... */
  readonly what: string;
  /** In the form in which it would be written, or as near to it as text can be. Ends without a line feed. */
  readonly text: string;
}
