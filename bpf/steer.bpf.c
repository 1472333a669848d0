// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Within the pod's netns: what comes by `lo`, and which socket a new connection belongs to.
 */
#include "rewrite.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * ztunnel's answer to a question that was asked from a spread address: the address says which nameserver
 * was meant, and the receiver is only shown where an answer comes from.
 */
static __always_inline int answer(struct __sk_buff *skb, const struct packet *p)
{
	const __u32 checksum = p->transport + 6;
	__s64 sum;

	if (p->ipv4) {
		__u32 from = p->source.word[3], to = p->destination.word[3];

		if (bpf_l4_csum_replace(skb, checksum, from, to,
					BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0 | 4) ||
		    bpf_l3_csum_replace(skb, p->network + 10, from, to, 4))
			return TC_ACT_SHOT;
	} else {
		sum = bpf_csum_diff((__be32 *)&p->source, 16, (__be32 *)&p->destination, 16, 0);
		if (sum < 0 ||
		    bpf_l4_csum_replace(skb, checksum, 0, sum, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0))
			return TC_ACT_SHOT;
	}
	return write_address(skb, p, source_offset(p), &p->destination);
}

static __always_inline bool is_answer(struct __sk_buff *skb, const struct packet *p)
{
	__u16 port;

	return p->protocol == IPPROTO_UDP && is_spread(&p->destination) && is_loopback(&p->source) &&
	       !bpf_skb_load_bytes(skb, p->transport, &port, sizeof(port)) &&
	       port == bpf_htons(knobs.port_dns);
}

/*
 * `lo`, inward: what ztunnel sends to the application gets our mark, which the application's socket
 * inherits (tcp_fwmark_accept), so that its answers come back to `lo`.
 */
SEC("tc")
int ambient_loopback(struct __sk_buff *skb)
{
	struct packet p = {};
	enum parsed parsed;

	if (!is_marked_ztunnel(skb->mark))
		return TC_ACT_UNSPEC;
	parsed = parse(skb, true, false, &p);
	if (parsed == UNPARSED)
		return TC_ACT_SHOT;
	if (parsed == NOT_TCP && is_answer(skb, &p))
		return answer(skb, &p);
	if (parsed != TCP && parsed != LATER_FRAGMENT)
		return TC_ACT_UNSPEC;
	/* ztunnel that calls its own listeners would be captured again, without end. */
	if (parsed == TCP && is_syn(&p) && (is_shadow(&p.destination) || is_spread(&p.destination)))
		return TC_ACT_SHOT;
	skb->mark = (skb->mark & ~knobs.mark_mask) | knobs.local_mark;
	return TC_ACT_UNSPEC;
}

static __always_inline int steer_to(struct bpf_sk_lookup *ctx, __u64 cookie, __u16 port)
{
	struct ambient_state *node = node_state();
	__u16 newest = node ? node->newest_slot & 1 : 0;

	for (int i = 0; i < AMBIENT_SLOTS; i++) {
		struct ambient_listener_key key = {
			.cookie = cookie,
			.port = port,
			.slot = i == AMBIENT_SLOT_ADOPTED ? i : newest ^ i,
		};
		struct bpf_sock *sk = bpf_map_lookup_elem(&listeners, &key);
		int error;

		if (!sk)
			continue;
		/* Anybody with ztunnel's uid in the pod may join its SO_REUSEPORT group. */
		error = bpf_sk_assign(ctx, sk, BPF_SK_LOOKUP_F_NO_REUSEPORT);
		bpf_sk_release(sk);
		if (!error)
			return SK_PASS;
	}
	return SK_DROP;
}

/*
 * ztunnel's own ports at the pod's address, which captured connections never have: answered, a direct call
 * would be taken for a captured one. With another engine in charge that is how they are redirected.
 */
static __always_inline bool is_direct_call(struct bpf_sk_lookup *ctx, const struct ambient_address *local)
{
	struct ambient_owner *owner;
	struct ambient_pod *pod;

	if (ctx->protocol != IPPROTO_TCP ||
	    (ctx->local_port != knobs.port_outbound && ctx->local_port != knobs.port_inbound))
		return false;
	owner = bpf_map_lookup_elem(&addresses, local);
	pod = owner && owner->role == AMBIENT_ROLE_POD ? bpf_map_lookup_elem(&pods, &owner->cookie) : NULL;
	return pod && !(pod->flags & AMBIENT_POD_RETIRING);
}

/* Which socket a new connection belongs to: shadow and spread addresses are ztunnel's, or nobody's. */
SEC("sk_lookup")
int ambient_lookup(struct bpf_sk_lookup *ctx)
{
	struct ambient_address local, remote;
	struct ambient_owner *owner;

	if (ctx->family == AF_INET) {
		local = mapped(ctx->local_ip4);
		remote = mapped(ctx->remote_ip4);
	} else {
		local.word[0] = ctx->local_ip6[0];
		barrier();
		local.word[1] = ctx->local_ip6[1];
		barrier();
		local.word[2] = ctx->local_ip6[2];
		barrier();
		local.word[3] = ctx->local_ip6[3];
		barrier();
		remote.word[0] = ctx->remote_ip6[0];
		barrier();
		remote.word[1] = ctx->remote_ip6[1];
		barrier();
		remote.word[2] = ctx->remote_ip6[2];
		barrier();
		remote.word[3] = ctx->remote_ip6[3];
		barrier();
	}
	if (is_spread(&local)) {
		/* An answer to a question that was asked from here. */
		if (ctx->protocol == IPPROTO_UDP && ctx->remote_port == bpf_htons(knobs.port_dns))
			return SK_PASS;
		if (ctx->protocol != IPPROTO_TCP || ctx->local_port != knobs.port_outbound)
			return SK_DROP;
		owner = bpf_map_lookup_elem(&addresses, &remote);
		if (!owner || owner->role != AMBIENT_ROLE_POD)
			return SK_DROP;
		return steer_to(ctx, owner->cookie, knobs.port_outbound);
	}
	if (!is_shadow(&local))
		return is_direct_call(ctx, &local) ? SK_DROP : SK_PASS;
	owner = bpf_map_lookup_elem(&addresses, &local);
	if (ctx->protocol != IPPROTO_TCP || !owner || owner->role != AMBIENT_ROLE_SHADOW)
		return SK_DROP;
	return steer_to(ctx, owner->cookie, knobs.port_inbound);
}
