// SPDX-License-Identifier: Apache-2.0
// Sysctls of the pod's netns. Their previous values are the kernel's defaults, so one letter per
// sysctl that we changed is all there is to remember; the engine keeps the letters in the kernel.
import { codeOf } from "../core/errors.ts";
import type { NativeBinding } from "../native/binding.ts";

interface Sysctl {
  readonly letter: string;
  readonly key: string;
  /** Engines that count on sysctls don't do without. */
  readonly required: boolean;
  /** Default "1". */
  readonly wanted?: string;
  /** Default: the other one of "0" and "1". */
  readonly kernels?: string;
  /** Only for engines that translate. */
  readonly translated?: true;
}

const wantedOf = ({ wanted }: Sysctl) => wanted ?? "1";
const defaultOf = ({ wanted, kernels }: Sysctl) => kernels ?? (wanted === "0" ? "1" : "0");

export const EARLY_DEMUX = "d";
/** Of conntrack, for connections that one end has half closed. */
export const HALF_CLOSED = ["c", "f"] as const;
/** As long as conntrack remembers an open connection. */
const FIVE_DAYS = "432000";

/**
 * They may stay in a pod that becomes upstream's. Early demux: connections that were translated go on by conntrack, and
 * its rules have the same trap. Migration of requests: it sets none, and resets them when its ztunnel is followed by
 * another, as it is in an upgrade.
 */
const OF_UPSTREAM_TOO = [EARLY_DEMUX, "m"];

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
  // A client may call two ports of the pod from one port of its own. Translated to 15006 both have one tuple, and conntrack
  // gives the second another source port, in INPUT. A kernel trap: by then early demux has found the first one's socket,
  // and the kernel drops a wrong one (5.13+, nf_nat_ipv4_local_in) only where it is not transparent, as ztunnel's are.
  // Of both families, and of UDP: tcp_early_demux, which says less, is the whole machine's before 5.15.58.
  { letter: EARLY_DEMUX, key: "net/ipv4/ip_early_demux", required: true, wanted: "0", translated: true },
  // A connection that is older than the capture stays unknown to conntrack, which has not seen it begin. Otherwise what it
  // remembers of one that has ended since, of which it may have seen one FIN only, is what a SYN with the same ends is
  // taken for: that one is not turned, and so refused.
  { letter: "o", key: "net/netfilter/nf_conntrack_tcp_loose", required: false, wanted: "0", translated: true },
  // Conntrack forgets a connection of which it has seen one FIN after one or two minutes of silence, and with it where
  // it was turned. An answer that takes longer was lost; and what an application writes to a connection that its
  // server has ended (a pool's that was idle) is no SYN, and left in the clear.
  {
    letter: HALF_CLOSED[0],
    key: closing("close_wait"),
    required: false,
    wanted: FIVE_DAYS,
    kernels: "60",
    translated: true,
  },
  {
    letter: HALF_CLOSED[1],
    key: closing("fin_wait"),
    required: false,
    wanted: FIVE_DAYS,
    kernels: "120",
    translated: true,
  },
];

function closing(state: string): string {
  return `net/netfilter/nf_conntrack_tcp_timeout_${state}`;
}

/** Letters of every sysctl: assumed for a pod that was prepared by an agent that has died since. */
export const ALL_LETTERS = SYSCTLS.map(({ letter }) => letter).join("");

/** What any of them says, sorted. */
export function mergedLetters(...letters: readonly string[]): string {
  return [...new Set(letters.join(""))].sort().join("");
}

export interface SysctlFailure {
  readonly letter: string;
  readonly key: string;
  readonly required: boolean;
  readonly reason: string;
}

/** Those of an engine that translates, or of one that does not. */
function sysctlsOf(translates: boolean): readonly Sysctl[] {
  return SYSCTLS.filter(({ translated }) => translates || translated === undefined);
}

/** Sets what is not set yet. Returns the letters of what it changed, and what was refused. */
export function setSysctls(
  binding: NativeBinding,
  netns: number,
  translates: boolean,
): { readonly changed: string; readonly failures: readonly SysctlFailure[] } {
  let changed = "";
  const failures: SysctlFailure[] = [];
  for (const sysctl of sysctlsOf(translates)) {
    const { letter, key, required } = sysctl;
    try {
      if (binding.sysctlSet(netns, key, wantedOf(sysctl)) !== wantedOf(sysctl)) changed += letter;
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
  translates: boolean,
): { readonly lines: readonly string[]; readonly letters: string } {
  const known = sysctlsOf(translates).map((sysctl) => ({
    letter: sysctl.letter,
    key: sysctl.key,
    wanted: wantedOf(sysctl),
    value: read(binding, netns, sysctl.key),
  }));
  const there = known.filter(({ value }) => value !== undefined);
  return {
    lines: there.map(({ key, wanted, value }) => `sysctl -w ${key.replaceAll("/", ".")}=${wanted}  # is ${value}`),
    letters: there
      .filter(({ wanted, value }) => value !== wanted)
      .map(({ letter }) => letter)
      .join(""),
  };
}

/** Names of required sysctls that are not as they should be. */
export function wrongSysctls(binding: NativeBinding, netns: number, translates: boolean): string[] {
  return sysctlsOf(translates)
    .filter(({ required }) => required)
    .map((sysctl) => ({ key: sysctl.key, wanted: wantedOf(sysctl), value: read(binding, netns, sysctl.key) }))
    .filter(({ wanted, value }) => value !== undefined && value !== wanted)
    .map(({ key, wanted, value }) => `${key} is ${value}, not ${wanted}`);
}

/** What a hand-over to upstream has to put back. */
export function withoutUpstreams(letters: string): string {
  return [...letters].filter((letter) => !OF_UPSTREAM_TOO.includes(letter)).join("");
}

/** What a hand-over to upstream seems to have left: upstream itself sets none. */
export function leftToUpstream(binding: NativeBinding, netns: number): string {
  const left = SYSCTLS.filter(
    (sysctl) => OF_UPSTREAM_TOO.includes(sysctl.letter) && read(binding, netns, sysctl.key) === wantedOf(sysctl),
  );
  return mergedLetters(...left.map(({ letter }) => letter));
}

/** Puts the sysctls of these letters back to the kernel's default. */
export function restoreSysctls(binding: NativeBinding, netns: number, letters: string): void {
  for (const sysctl of SYSCTLS) {
    const { letter, key } = sysctl;
    if (!letters.includes(letter) || read(binding, netns, key) !== wantedOf(sysctl)) continue;
    binding.sysctlSet(netns, key, defaultOf(sysctl));
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
