/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef AMBIENT_ADDRESS_H
#define AMBIENT_ADDRESS_H

#include "maps.h"

#define MAPPED_WORD bpf_htonl(0xffff)

static __always_inline struct ambient_address mapped(__u32 ip4)
{
	return (struct ambient_address){ .word = { 0, 0, MAPPED_WORD, ip4 } };
}

static __always_inline bool is_ipv4(const struct ambient_address *a)
{
	return a->word[0] == 0 && a->word[1] == 0 && a->word[2] == MAPPED_WORD;
}

static __always_inline bool is_same(const struct ambient_address *a, const struct ambient_address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] &&
	       a->word[3] == b->word[3];
}

static __always_inline bool is_zero(const struct ambient_address *a)
{
	return (a->word[0] | a->word[1] | a->word[2] | a->word[3]) == 0;
}

/* Loopback, or unspecified, which connect() takes for loopback. */
static __always_inline bool is_loopback(const struct ambient_address *a)
{
	if (is_ipv4(a))
		return a->word[3] == 0 || (a->word[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return (a->word[0] | a->word[1] | a->word[2]) == 0 && (a->word[3] == 0 || a->word[3] == bpf_htonl(1));
}

static __always_inline bool is_shadow(const struct ambient_address *a)
{
	if (is_ipv4(a))
		return (a->word[3] & knobs.shadow4_mask.word[3]) == knobs.shadow4.word[3];
	return (a->word[0] & knobs.shadow6_mask.word[0]) == knobs.shadow6.word[0] &&
	       (a->word[1] & knobs.shadow6_mask.word[1]) == knobs.shadow6.word[1] &&
	       (a->word[2] & knobs.shadow6_mask.word[2]) == knobs.shadow6.word[2] &&
	       (a->word[3] & knobs.shadow6_mask.word[3]) == knobs.shadow6.word[3];
}

static __always_inline bool is_spread(const struct ambient_address *a)
{
	__u32 last = a->word[3] & bpf_htonl(0xffff0000);

	if (is_ipv4(a))
		return last == knobs.spread4.word[3];
	return a->word[0] == knobs.spread6.word[0] && a->word[1] == knobs.spread6.word[1] &&
	       a->word[2] == knobs.spread6.word[2] && last == knobs.spread6.word[3];
}

static __always_inline struct ambient_address first_spread(bool ipv4)
{
	if (ipv4)
		return mapped(knobs.spread4.word[3]);
	return (struct ambient_address){ .word = { knobs.spread6.word[0], knobs.spread6.word[1],
						   knobs.spread6.word[2], knobs.spread6.word[3] } };
}

/* One of 65,536 local addresses, the same for the same destination. */
static __always_inline struct ambient_address spread_of(const struct ambient_address *to, __u16 port)
{
	__u32 hash = to->word[0] * 0x9e3779b1 ^ to->word[1] * 0x85ebca6b ^ to->word[2] * 0xc2b2ae35;
	struct ambient_address spread;

	hash = (hash ^ to->word[3]) * 0x9e3779b1;
	hash ^= hash >> 15;
	hash = (hash ^ port) * 0x85ebca6b;
	hash ^= hash >> 13;
	hash = hash * 0xc2b2ae35 >> 16;
	spread = first_spread(is_ipv4(to));
	spread.word[3] |= bpf_htonl(hash & 0xffff);
	return spread;
}

static __always_inline bool is_excluded(__u64 cookie, const struct ambient_address *to)
{
	struct ambient_exclude_key key = {
		.prefix_bits = 64 + 128,
		.cookie = { (__u32)cookie, (__u32)(cookie >> 32) },
		.address = *to,
	};

	return bpf_map_lookup_elem(&excludes, &key) != NULL;
}

static __always_inline __u32 pod_address_flags(__u64 cookie, const struct ambient_address *a)
{
	struct ambient_pod_address_key key = { .cookie = cookie, .address = *a };
	__u32 *flags = bpf_map_lookup_elem(&pod_addresses, &key);

	return flags ? *flags : 0;
}

static __always_inline bool is_marked_ztunnel(__u32 mark)
{
	return (mark & knobs.mark_mask) == knobs.ztunnel_mark;
}

#endif
