/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the programs (C) and the addon (C++) both know: layouts of map keys and values, numbers of
 * verdicts. Addresses are always 16 bytes in network order, IPv4 as ::ffff:a.b.c.d; ports are in
 * network order unless a name says otherwise. Keys have no padding: it would be part of the key.
 */
#ifndef AMBIENT_ABI_H
#define AMBIENT_ABI_H

#include <linux/types.h>

#ifdef __cplusplus
#define _Static_assert static_assert
#endif

/* Raised when a layout below changes: agents of another schema keep to their own pins. */
#define AMBIENT_SCHEMA 1

#define AMBIENT_MAX_PODS 4096
#define AMBIENT_MAX_ADDRESSES 16384
#define AMBIENT_MAX_POD_ADDRESSES 65536
#define AMBIENT_MAX_EXCLUDES 65536
#define AMBIENT_MAX_HANDSHAKES 16384
#define AMBIENT_MAX_LISTENERS 16384
#define AMBIENT_MAX_FRAGMENTS 4096
#define AMBIENT_MAX_PROBES 4096
#define AMBIENT_MAX_ASKED 8
#define AMBIENT_MAX_ZTUNNELS 16
/* Deepest cgroup below the root that is looked at. */
#define AMBIENT_MAX_DEPTH 24
#define AMBIENT_EVENTS_BYTES (256 * 1024)

struct ambient_address {
	__u32 word[4];
};

/* What a person chose; the addon writes it into .rodata before the programs are loaded. */
struct ambient_knobs {
	__u32 ztunnel_mark;
	__u32 local_mark;
	__u32 mark_mask;
	__u32 verify_mark;
	/* Host order. */
	__u16 port_outbound;
	__u16 port_inbound;
	__u16 port_hbone;
	__u16 port_dns;
	/* First bits of the ranges, the rest zero. */
	struct ambient_address shadow4;
	struct ambient_address shadow4_mask;
	struct ambient_address shadow6;
	struct ambient_address shadow6_mask;
	/* A spread address is one of these with its last 16 bits taken from a hash. */
	struct ambient_address spread4;
	struct ambient_address spread6;
};

enum ambient_pod_flag {
	AMBIENT_POD_IPV6 = 1 << 0,
	AMBIENT_POD_INBOUND = 1 << 1,
	AMBIENT_POD_DNS = 1 << 2,
	/* Only the nameservers listed in pod_addresses. */
	AMBIENT_POD_DNS_LISTED = 1 << 3,
	AMBIENT_POD_EXCLUDES = 1 << 4,
	/* Nothing new is captured; what goes through ztunnel already goes on. */
	AMBIENT_POD_DRAINING = 1 << 5,
	/* Another engine steers: nothing is refused either. */
	AMBIENT_POD_RETIRING = 1 << 6,
	/* Connections that another engine has captured go on: what belongs to no socket may be theirs. */
	AMBIENT_POD_BESIDE = 1 << 7,
};

/* pods: netns cookie -> this. A pod is captured by writing its entry, released by deleting it. */
struct ambient_pod {
	/* All zero: the pod has no address of this family. */
	struct ambient_address ip4;
	struct ambient_address ip6;
	struct ambient_address shadow4;
	struct ambient_address shadow6;
	/* Whoever wears these addresses is a probe. */
	struct ambient_address probe4;
	struct ambient_address probe6;
	__u32 flags;
	/* Letters of the sysctls that were changed for the pod; not used by programs. */
	char sysctls[12];
	/* Digest of what the pod was captured for; not used by programs. */
	char plan[16];
};
_Static_assert(sizeof(struct ambient_pod) == 128, "layout");

enum ambient_role {
	AMBIENT_ROLE_POD = 1,
	AMBIENT_ROLE_SHADOW = 2,
};

/* addresses: address -> whose it is. TC and sk_lookup programs find the pod by it. */
struct ambient_owner {
	__u64 cookie;
	__u32 role;
	__u32 zero;
};

enum ambient_pod_address_flag {
	/* An address of the pod's own: connections to it are direct. */
	AMBIENT_ADDRESS_LOCAL = 1 << 0,
	AMBIENT_ADDRESS_NAMESERVER = 1 << 1,
};

struct ambient_pod_address_key {
	__u64 cookie;
	struct ambient_address address;
};

/* excludes, an LPM trie: prefix = 64 bits of cookie, then the address. */
struct ambient_exclude_key {
	__u32 prefix_bits;
	/* Two halves, so that nothing is padded. */
	__u32 cookie[2];
	struct ambient_address address;
};

struct ambient_destination {
	struct ambient_address address;
	__u16 port;
	__u16 zero;
	__u32 zero2;
};

/* asked: nameservers that an unconnected socket has asked; the place is told by the source address. */
struct ambient_asked {
	struct ambient_destination server[AMBIENT_MAX_ASKED];
	/* Place of the next new one, and of the last question. */
	__u32 next;
	__u32 last;
};

/* handshakes: a captured connection between its SYN and ztunnel's question for its destination. */
struct ambient_handshake_key {
	__u64 cookie;
	struct ambient_address source;
	__u16 source_port;
	/* Last 16 bits of the spread address: one source port may lead to several destinations. */
	__u16 spread;
	__u32 family;
};

/* Which ztunnel a listener belongs to: by the cgroup that its listen() was seen in, or found later. */
#define AMBIENT_SLOTS 3
#define AMBIENT_SLOT_ADOPTED 2

struct ambient_listener_key {
	__u64 cookie;
	/* Host order. */
	__u16 port;
	__u16 slot;
	__u32 zero;
};

struct ambient_fragment_key {
	struct ambient_address source;
	struct ambient_address destination;
	__u32 id;
	__u32 zero;
};

struct ambient_probe_key {
	struct ambient_address source;
	struct ambient_address destination;
	__u16 source_port;
	__u16 destination_port;
	__u32 zero;
};

/* How long an announcement holds: the SYN and its retransmissions. */
#define AMBIENT_PROBE_NANOSECONDS (10ULL * 1000 * 1000 * 1000)

struct ambient_probe {
	__u64 nanoseconds;
	__u32 prober;
	__u32 zero;
};

/* Who may open connections past ztunnel: processes of the node itself. */
enum ambient_prober {
	AMBIENT_PROBER_KUBELET = 1,
	AMBIENT_PROBER_HOST = 2,
};

struct ambient_state {
	/* Netns of the node itself. */
	__u64 host_cookie;
	/* Listeners of this slot are asked first. */
	__u32 newest_slot;
	/* 0: ztunnel shares its cgroup with pods, or is not known yet; then its mark alone tells. */
	__u32 ztunnel_by_cgroup;
	__u32 zero;
	/* 0: no probe tuples. Else enum ambient_prober: the least that is let through. */
	__u32 probers;
	__u64 zero2;
};

/* monitor: one place only the agent writes, one only the programs write. */
enum ambient_monitor {
	/* CLOCK_MONOTONIC, ns: until then events are told; 0: they are not. Ends by itself with its reader.
	 */
	AMBIENT_MONITOR_UNTIL,
	/* Events that found the ring full. */
	AMBIENT_MONITOR_LOST,
	AMBIENT_MONITOR_PLACES,
};

enum ambient_verdict {
	AMBIENT_OUT_CAPTURED,
	AMBIENT_OUT_DNS,
	AMBIENT_OUT_LOCAL,
	AMBIENT_OUT_EXCLUDED,
	AMBIENT_OUT_REFUSED_SELF,
	AMBIENT_OUT_REFUSED_FULL,
	AMBIENT_OUT_REFUSED_DEVICE,
	AMBIENT_OUT_LOST_DESTINATION,
	AMBIENT_OUT_LEAK,
	AMBIENT_OUT_FORGED_MARK,
	AMBIENT_OUT_UNPARSED,
	AMBIENT_IN_CAPTURED,
	AMBIENT_IN_HBONE,
	AMBIENT_IN_PROBE,
	AMBIENT_IN_HOST_PROBE,
	AMBIENT_IN_BYPASSED,
	AMBIENT_IN_NO_LISTENER,
	AMBIENT_IN_UNPARSED,
	AMBIENT_LOOP_REFUSED,
	AMBIENT_VERDICTS,
	/* Told to who reads events, and not counted. */
	AMBIENT_OUT_ZTUNNEL = AMBIENT_VERDICTS,
	AMBIENT_OUT_TO_PROBER,
	AMBIENT_OUT_DRAINING,
	AMBIENT_OUT_FAMILY,
	AMBIENT_IN_DRAINING,
	AMBIENT_IN_FAMILY,
	AMBIENT_TOLD,
};

struct ambient_counters {
	__u64 verdict[AMBIENT_VERDICTS];
};

struct ambient_event {
	/* CLOCK_MONOTONIC. */
	__u64 nanoseconds;
	__u64 cookie;
	struct ambient_address source;
	struct ambient_address destination;
	__u16 source_port;
	__u16 destination_port;
	__u8 protocol;
	__u8 verdict;
	__u16 zero;
};
_Static_assert(sizeof(struct ambient_event) == 56, "layout");

#endif
