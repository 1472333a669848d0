/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Where a socket of a pod may go: the one decision for connect() and for unconnected questions. */
#ifndef AMBIENT_DECIDE_H
#define AMBIENT_DECIDE_H

#include "address.h"
#include "verdict.h"

enum action { PASS, REFUSE, CAPTURE, CAPTURE_DNS, VERIFY };

struct request {
	__u64 cookie;
	const struct ambient_pod *pod;
	struct ambient_address to;
	/* Network order. */
	__u16 port;
	__u8 protocol;
	bool ztunnel;
	bool verify;
};

/* By the cgroup of the caller too, where ztunnel has one of its own: SO_MARK takes only CAP_NET_RAW. */
static __always_inline bool is_ztunnel(__u32 mark)
{
	struct ambient_state *node;

	if (!is_marked_ztunnel(mark))
		return false;
	node = node_state();
	if (!node || !node->ztunnel_by_cgroup)
		return true;
	/* From the root down: the depth of a node that is a container itself is not ours to know. */
	for (int level = 0; level < AMBIENT_MAX_DEPTH; level++) {
		__u64 id = bpf_get_current_ancestor_cgroup_id(level);

		if (!id)
			break;
		if (bpf_map_lookup_elem(&ztunnels, &id))
			return true;
	}
	return false;
}

static __always_inline bool is_own(const struct request *r)
{
	return is_same(&r->to, &r->pod->ip4) || is_same(&r->to, &r->pod->ip6) ||
	       (pod_address_flags(r->cookie, &r->to) & AMBIENT_ADDRESS_LOCAL);
}

/* Tells who reads events, and nobody else. */
static __always_inline void heard(const struct request *r, enum ambient_verdict verdict)
{
	struct flow flow = {};

	if (!is_monitored())
		return;
	flow.source = is_ipv4(&r->to) ? r->pod->ip4 : r->pod->ip6;
	flow.destination = r->to;
	flow.destination_port = r->port;
	flow.protocol = r->protocol;
	tell(r->cookie, verdict, &flow);
}

static __always_inline void told(const struct request *r, enum ambient_verdict verdict)
{
	count(r->cookie, verdict);
	heard(r, verdict);
}

static __always_inline enum action passed(const struct request *r, enum ambient_verdict verdict)
{
	heard(r, verdict);
	return PASS;
}

static __always_inline enum action choose(const struct request *r)
{
	const struct ambient_pod *pod = r->pod;
	bool own_port = r->port == bpf_htons(knobs.port_outbound) || r->port == bpf_htons(knobs.port_inbound);
	bool is_dns = r->port == bpf_htons(53);
	bool tcp = r->protocol == IPPROTO_TCP;

	if (!tcp && !is_dns)
		return PASS;
	/* Our own: led to where the sk_lookup program has to refuse it. */
	if (r->verify)
		return VERIFY;
	if (is_shadow(&r->to) || is_spread(&r->to)) {
		/* Another generation of these programs may have captured it already. */
		if (is_spread(&r->to) && r->port == bpf_htons(knobs.port_outbound) && !r->ztunnel)
			return PASS;
		told(r, r->ztunnel ? AMBIENT_LOOP_REFUSED : AMBIENT_OUT_REFUSED_SELF);
		return REFUSE;
	}
	if (pod->flags & AMBIENT_POD_RETIRING)
		return PASS;
	if (is_loopback(&r->to) || is_own(r)) {
		/* ztunnel would take a direct call for a captured one, at 15001 without end. */
		if (tcp && own_port) {
			told(r, r->ztunnel ? AMBIENT_LOOP_REFUSED : AMBIENT_OUT_REFUSED_SELF);
			return REFUSE;
		}
		if (r->ztunnel)
			return passed(r, AMBIENT_OUT_ZTUNNEL);
		if (tcp)
			told(r, AMBIENT_OUT_LOCAL);
		return PASS;
	}
	if (r->ztunnel)
		return passed(r, AMBIENT_OUT_ZTUNNEL);
	if (pod->flags & AMBIENT_POD_DRAINING)
		return passed(r, AMBIENT_OUT_DRAINING);
	if (is_ipv4(&r->to) ? is_zero(&pod->ip4) : !(pod->flags & AMBIENT_POD_IPV6) || is_zero(&pod->ip6))
		return passed(r, AMBIENT_OUT_FAMILY);
	if (tcp && (is_same(&r->to, &pod->probe4) || is_same(&r->to, &pod->probe6)))
		return passed(r, AMBIENT_OUT_TO_PROBER);
	if ((pod->flags & AMBIENT_POD_EXCLUDES) && is_excluded(r->cookie, &r->to)) {
		told(r, AMBIENT_OUT_EXCLUDED);
		return PASS;
	}
	if (is_dns && (pod->flags & AMBIENT_POD_DNS) &&
	    (!(pod->flags & AMBIENT_POD_DNS_LISTED) ||
	     (pod_address_flags(r->cookie, &r->to) & AMBIENT_ADDRESS_NAMESERVER))) {
		told(r, AMBIENT_OUT_DNS);
		return CAPTURE_DNS;
	}
	return tcp ? CAPTURE : PASS;
}

/* Everything of a socket that the decision needs; false when it is nobody's of ours. */
static __always_inline bool is_captured_pod(struct bpf_sock_addr *ctx, struct request *r)
{
	r->cookie = bpf_get_netns_cookie(ctx);
	r->pod = bpf_map_lookup_elem(&pods, &r->cookie);
	return r->pod != NULL;
}

static __always_inline struct ambient_address user_ip6(struct bpf_sock_addr *ctx)
{
	struct ambient_address a;

	a.word[0] = ctx->user_ip6[0];
	barrier();
	a.word[1] = ctx->user_ip6[1];
	barrier();
	a.word[2] = ctx->user_ip6[2];
	barrier();
	a.word[3] = ctx->user_ip6[3];
	barrier();
	/* The unspecified address stands for loopback, mapped too; both are told by is_loopback(). */
	return a;
}

static __always_inline void set_user_ip6(struct bpf_sock_addr *ctx, const struct ambient_address *a)
{
	ctx->user_ip6[0] = a->word[0];
	barrier();
	ctx->user_ip6[1] = a->word[1];
	barrier();
	ctx->user_ip6[2] = a->word[2];
	barrier();
	ctx->user_ip6[3] = a->word[3];
	barrier();
}

#endif
