// SPDX-License-Identifier: Apache-2.0
// Sysctls of the pod's netns. Their previous values are the kernel's defaults (0), so one letter per
// sysctl that we changed is all there is to remember; the engine keeps the letters in the kernel.
import { codeOf } from "../core/errors.ts";
import type { NativeBinding } from "../native/binding.ts";

interface Sysctl {
  readonly letter: string;
  readonly key: string;
  /** Without it the mark-based form of the spoofed leg does not work. */
  readonly required: boolean;
}

const WANTED = "1";
const DEFAULT = "0";

export const SYSCTLS: readonly Sysctl[] = [
  // The application's accepted socket inherits the mark of the SYN.
  { letter: "a", key: "net/ipv4/tcp_fwmark_accept", required: true },
  // Resets and ICMP errors answer with the mark they were asked with: closed ports fail fast.
  { letter: "r", key: "net/ipv4/fwmark_reflect", required: true },
  { letter: "s", key: "net/ipv6/fwmark_reflect", required: true },
  // Connections waiting in the queue of a ztunnel that dies move to its successor (5.14+).
  { letter: "m", key: "net/ipv4/tcp_migrate_req", required: false },
  // ebpf brings answers of listeners with an SO_MARK of their own back to lo, where they have a local source.
  { letter: "l", key: "net/ipv4/conf/lo/accept_local", required: false },
];

/** Letters of every sysctl: assumed for a pod that was prepared by an agent that has died since. */
export const ALL_LETTERS = SYSCTLS.map(({ letter }) => letter).join("");

export interface SysctlFailure {
  readonly letter: string;
  readonly key: string;
  readonly required: boolean;
  readonly reason: string;
}

/** Sets what is not set yet. Returns the letters of what it changed, and what was refused. */
export function setSysctls(
  binding: NativeBinding,
  netns: number,
): { readonly changed: string; readonly failures: readonly SysctlFailure[] } {
  let changed = "";
  const failures: SysctlFailure[] = [];
  for (const { letter, key, required } of SYSCTLS) {
    try {
      if (binding.sysctlSet(netns, key, WANTED) !== WANTED) changed += letter;
    } catch (error) {
      // ENOENT: a kernel without it, or without IPv6 at all; then no IPv6 packet needs it either.
      if (codeOf(error) === "ENOENT" && key.startsWith("net/ipv6/")) continue;
      failures.push({ letter, key, required, reason: codeOf(error) });
    }
  }
  return { changed, failures };
}

/** What `setSysctls` would write, with what is there now, and the letters of what it would change. */
export function plannedSysctls(
  binding: NativeBinding,
  netns: number,
): { readonly lines: readonly string[]; readonly letters: string } {
  const known = SYSCTLS.map((sysctl) => ({ ...sysctl, value: read(binding, netns, sysctl.key) }));
  const there = known.filter(({ value }) => value !== undefined);
  return {
    lines: there.map(({ key, value }) => `sysctl -w ${key.replaceAll("/", ".")}=${WANTED}  # is ${value}`),
    letters: there
      .filter(({ value }) => value !== WANTED)
      .map(({ letter }) => letter)
      .join(""),
  };
}

/** Names of required sysctls that are not as they should be. */
export function wrongSysctls(binding: NativeBinding, netns: number): string[] {
  return SYSCTLS.filter(({ required }) => required)
    .map(({ key }) => ({ key, value: read(binding, netns, key) }))
    .filter(({ value }) => value !== undefined && value !== WANTED)
    .map(({ key, value }) => `${key} is ${value}, not ${WANTED}`);
}

/** Puts the sysctls of these letters back to the kernel's default. */
export function restoreSysctls(binding: NativeBinding, netns: number, letters: string): void {
  for (const { letter, key } of SYSCTLS) {
    if (letters.includes(letter) && read(binding, netns, key) === WANTED) binding.sysctlSet(netns, key, DEFAULT);
  }
}

function read(binding: NativeBinding, netns: number, key: string): string | undefined {
  try {
    return binding.sysctlGet(netns, key).trim();
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}
