// SPDX-License-Identifier: Apache-2.0
import type { AddressFamily } from "../native/binding.ts";

/** Documentation addresses (RFC 5737, RFC 3849): nobody's. What is sent there for a proof reaches no one. */
export const NOBODY: Readonly<Record<AddressFamily, string>> = { 4: "192.0.2.1", 6: "2001:db8::1" };
