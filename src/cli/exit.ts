// SPDX-License-Identifier: Apache-2.0

/** Exit statuses that scripts may rely on. */
export const EXIT = { ok: 0, problem: 1, usage: 2, unreachable: 3, denied: 4 } as const;

/** Set when the bundle is made. */
export const VERSION = process.env.AMBIENT_CNI_VERSION ?? "0.0.0-dev";
