// SPDX-License-Identifier: Apache-2.0
// What the datapath's words mean to people: one table for the stream, its filters and its documentation.

/** Where a connection went: to ztunnel (or from it), past it, nowhere with an answer, nowhere without. */
export const FLOW_VERDICTS = ["ztunnel", "passed", "refused", "dropped"] as const;
export type FlowVerdict = (typeof FLOW_VERDICTS)[number];

export const FLOW_DIRECTIONS = ["in", "out"] as const;
export type FlowDirection = (typeof FLOW_DIRECTIONS)[number];

export interface FlowWord {
  readonly direction: FlowDirection;
  readonly verdict: FlowVerdict;
  /** Stable, short. */
  readonly reason: string;
  /** As a sentence's rest. */
  readonly text: string;
}

const word = (direction: FlowDirection, verdict: FlowVerdict, reason: string, text: string): FlowWord => ({
  direction,
  verdict,
  reason,
  text,
});

/** By the name that native/bpf_events.cc gives. */
export const FLOW_WORDS: Readonly<Record<string, FlowWord>> = {
  outbound_captured: word("out", "ztunnel", "outbound", "to ztunnel's 15001"),
  outbound_dns: word("out", "ztunnel", "dns", "to ztunnel's DNS at 15053"),
  outbound_local: word("out", "passed", "local", "loopback, or the pod's own address"),
  outbound_excluded: word("out", "passed", "excluded", "in an excluded network"),
  outbound_ztunnel: word("out", "ztunnel", "by-ztunnel", "ztunnel's own connection"),
  outbound_to_prober: word("out", "passed", "prober", "to the address that probes come from"),
  outbound_draining: word("out", "passed", "draining", "the pod is leaving the mesh"),
  outbound_family: word("out", "passed", "family", "the pod is not captured for this address family"),
  outbound_refused_self: word("out", "refused", "own-port", "ztunnel's own ports take no direct call"),
  outbound_refused_full: word("out", "refused", "full", "there was no room to remember its destination"),
  outbound_refused_device: word("out", "refused", "device", "its socket is bound to a device and could not be freed"),
  outbound_refused_stale: word("out", "refused", "stale", "conntrack takes it for a connection that is over"),
  outbound_lost_destination: word("out", "refused", "forgotten", "nobody knew its destination any more"),
  loop_refused: word("out", "refused", "loop", "ztunnel called its own port"),
  outbound_leak: word("out", "dropped", "leak", "no connect() hook has seen it"),
  outbound_forged_mark: word("out", "dropped", "forged-mark", "it wears ztunnel's mark and is not ztunnel's"),
  outbound_unparsed: word("out", "dropped", "unparsed", "its headers could not be read"),
  inbound_captured: word("in", "ztunnel", "inbound", "to ztunnel's 15006"),
  inbound_hbone: word("in", "ztunnel", "hbone", "to ztunnel's 15008, untouched"),
  inbound_probe: word("in", "passed", "probe", "kubelet's, or from the address that probes wear"),
  inbound_host_probe: word("in", "passed", "host", "of a process of the node"),
  inbound_bypassed: word("in", "passed", "bypass", "the pod's annotation bypasses inbound capture"),
  inbound_draining: word("in", "passed", "draining", "the pod is leaving the mesh"),
  inbound_family: word("in", "passed", "family", "the pod is not captured for this address family"),
  inbound_no_listener: word("in", "refused", "no-listener", "ztunnel does not listen in the pod"),
  inbound_refused_stale: word("in", "refused", "stale", "conntrack takes it for a connection that is over"),
  inbound_unparsed: word("in", "dropped", "unparsed", "its headers could not be read"),
};

/** Of a datapath of another version: said as it is, never hidden. */
export function wordOf(name: string): FlowWord {
  const known = Object.hasOwn(FLOW_WORDS, name) ? FLOW_WORDS[name] : undefined;
  return known ?? word(name.startsWith("inbound") ? "in" : "out", "dropped", name, "a word of another version");
}

export const FLOW_REASONS: readonly string[] = [...new Set(Object.values(FLOW_WORDS).map(({ reason }) => reason))];
