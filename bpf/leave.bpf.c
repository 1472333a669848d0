// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The pod's interfaces, outward: what leaves from the shadow address is turned back to the pod's, and no
 * SYN passes that the connect hooks have not seen (the leak guard).
 */
#include "legs.h"
#include "rewrite.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* A SYN from a socket of ztunnel's; the mark alone could be anybody's with CAP_NET_RAW. */
static __always_inline enum ambient_verdict unhooked(struct __sk_buff *skb)
{
	struct ambient_state *node;

	if (!is_marked_ztunnel(skb->mark))
		return AMBIENT_OUT_LEAK;
	node = node_state();
	if (!node || !node->ztunnel_by_cgroup)
		return AMBIENT_VERDICTS;
	for (int level = 0; level < AMBIENT_MAX_DEPTH; level++) {
		__u64 id = bpf_skb_ancestor_cgroup_id(skb, level);

		if (!id)
			break;
		if (bpf_map_lookup_elem(&ztunnels, &id))
			return AMBIENT_VERDICTS;
	}
	return AMBIENT_OUT_FORGED_MARK;
}

/*
 * An application whose listener has an SO_MARK of its own does not inherit ours, and its answers to
 * ztunnel's leg leave for the client. They are brought back to `lo`.
 */
static __always_inline int astray(struct __sk_buff *skb, const struct packet *p, bool ethernet)
{
	if (is_marked_ztunnel(skb->mark) ||
	    leg_of(skb, &p->source, p->source_port, &p->destination, p->destination_port) != MARKED_ZTUNNEL)
		return TC_ACT_UNSPEC;
	if (!ethernet)
		return TC_ACT_SHOT;
	{
		/* lo's own address; another one makes it a packet for somebody else. */
		__u8 zero[6] = {};

		if (bpf_skb_store_bytes(skb, 0, zero, sizeof(zero), 0))
			return TC_ACT_SHOT;
	}
	skb->mark = knobs.local_mark;
	return bpf_redirect(SK_LOOPBACK_IFINDEX, BPF_F_INGRESS);
}

static __always_inline int leaving(struct __sk_buff *skb, bool ethernet)
{
	struct packet p = {};
	enum parsed parsed = parse(skb, ethernet, true, &p);
	struct ambient_owner *owner;
	enum ambient_verdict verdict;
	struct ambient_pod *pod;

	if (parsed == NOT_IP)
		return TC_ACT_UNSPEC;
	if (parsed == UNPARSED)
		return dropped(&p.source, AMBIENT_OUT_UNPARSED, &p);
	if (is_spread(&p.source) || is_spread(&p.destination) || is_shadow(&p.destination))
		return TC_ACT_SHOT;
	owner = bpf_map_lookup_elem(&addresses, &p.source);
	pod = owner ? bpf_map_lookup_elem(&pods, &owner->cookie) : NULL;
	if (is_shadow(&p.source)) {
		if (!pod || parsed == NOT_TCP)
			return TC_ACT_SHOT;
		/* ztunnel only answers from there: rewritten, it would leave as the pod, past what follows.
		 */
		if (parsed == TCP && is_syn(&p)) {
			told(owner->cookie, AMBIENT_OUT_LEAK, &p);
			return TC_ACT_SHOT;
		}
		return write_address(skb, &p, source_offset(&p), p.ipv4 ? &pod->ip4 : &pod->ip6);
	}
	if (parsed != TCP)
		return TC_ACT_UNSPEC;
	if (!is_syn(&p))
		return pod ? astray(skb, &p, ethernet) : TC_ACT_UNSPEC;
	if (pod && ((pod->flags & (AMBIENT_POD_DRAINING | AMBIENT_POD_RETIRING)) ||
		    (!p.ipv4 && !(pod->flags & AMBIENT_POD_IPV6)) || is_same(&p.destination, &pod->probe4) ||
		    is_same(&p.destination, &pod->probe6) ||
		    ((pod->flags & AMBIENT_POD_EXCLUDES) && is_excluded(owner->cookie, &p.destination))))
		return TC_ACT_UNSPEC;
	verdict = unhooked(skb);
	if (verdict == AMBIENT_VERDICTS)
		return TC_ACT_UNSPEC;
	if (owner)
		told(owner->cookie, verdict, &p);
	return TC_ACT_SHOT;
}

SEC("tc")
int ambient_leave(struct __sk_buff *skb)
{
	return leaving(skb, true);
}

SEC("tc")
int ambient_leave_l3(struct __sk_buff *skb)
{
	return leaving(skb, false);
}
