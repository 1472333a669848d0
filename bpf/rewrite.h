/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A shadow has the one's-complement sum of the pod's address (RFC 6296), so that exchanging one for the
 * other changes no checksum, whatever the offloads.
 */
#ifndef AMBIENT_REWRITE_H
#define AMBIENT_REWRITE_H

#include "parse.h"
#include "verdict.h"

static __always_inline struct flow flow_of(const struct packet *p)
{
	return (struct flow){
		.source = p->source,
		.destination = p->destination,
		.source_port = p->source_port,
		.destination_port = p->destination_port,
		.protocol = p->protocol,
	};
}

/* Tells who reads events, and nobody else. */
static __always_inline void heard(__u64 cookie, enum ambient_verdict verdict, const struct packet *p)
{
	struct flow flow;

	if (!is_monitored())
		return;
	flow = flow_of(p);
	tell(cookie, verdict, &flow);
}

static __always_inline void told(__u64 cookie, enum ambient_verdict verdict, const struct packet *p)
{
	count(cookie, verdict);
	heard(cookie, verdict, p);
}

/* Dropped, and counted if `whose` is an address of a pod's. */
static __always_inline int dropped(const struct ambient_address *whose, enum ambient_verdict verdict,
				   const struct packet *p)
{
	struct ambient_owner *owner = bpf_map_lookup_elem(&addresses, whose);

	if (owner)
		told(owner->cookie, verdict, p);
	return TC_ACT_SHOT;
}

static __always_inline int write_address(struct __sk_buff *skb, const struct packet *p, __u32 offset,
					 const struct ambient_address *address)
{
	/* No flag: the sum stays as it is, which CHECKSUM_COMPLETE would get wrong otherwise for IPv6. */
	int error = p->ipv4 ? bpf_skb_store_bytes(skb, offset, &address->word[3], 4, 0)
			    : bpf_skb_store_bytes(skb, offset, address, 16, 0);

	return error ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

static __always_inline const struct ambient_address *shadow_of(const struct ambient_pod *pod, bool ipv4)
{
	return ipv4 ? &pod->shadow4 : &pod->shadow6;
}

#endif
