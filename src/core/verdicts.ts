// SPDX-License-Identifier: Apache-2.0

/**
 * What may become of a connection, a DNS question or a SYN of a captured pod; names of bpf/abi.h, native/bpf_events.cc,
 * but for those that only netfilter decides (`..._refused_stale`).
 */
export const VERDICTS = [
  "outbound_captured",
  "outbound_dns",
  "outbound_local",
  "outbound_excluded",
  "outbound_refused_self",
  "outbound_refused_full",
  "outbound_refused_device",
  "outbound_refused_stale",
  "outbound_lost_destination",
  "outbound_leak",
  "outbound_forged_mark",
  "outbound_unparsed",
  "inbound_captured",
  "inbound_hbone",
  "inbound_probe",
  "inbound_host_probe",
  "inbound_bypassed",
  "inbound_no_listener",
  "inbound_refused_stale",
  "inbound_unparsed",
  "loop_refused",
] as const;

export type Verdict = (typeof VERDICTS)[number];

/** How often each was decided; those never decided may be left out. */
export type VerdictCounts = Readonly<Partial<Record<Verdict, number>>>;
