// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The pod's interfaces. What comes for the pod is turned to its shadow address, where only ztunnel
 * listens, and what leaves from there is turned back: the client's leg and the leg to the application
 * then never share a 4-tuple. A shadow has the one's-complement sum of the pod's address (RFC 6296), so
 * that no checksum changes, whatever the offloads. On the way out, no SYN passes that the connect hooks
 * have not seen.
 */
#include "legs.h"
#include "verdict.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

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

static __always_inline void told(__u64 cookie, enum ambient_verdict verdict, const struct packet *p)
{
	struct flow flow = flow_of(p);

	decided(cookie, verdict, &flow);
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

/* A probe of the node itself: from the address that probes wear, or from a socket of the node. */
static __always_inline bool is_probe(const struct ambient_pod *pod, const struct packet *p,
				     enum ambient_verdict *verdict)
{
	struct ambient_probe_key key = {
		.source = p->source,
		.destination = p->destination,
		.source_port = p->source_port,
		.destination_port = p->destination_port,
	};
	struct ambient_state *node;
	__u32 *prober;

	*verdict = AMBIENT_IN_PROBE;
	if (is_same(&p->source, &pod->probe4) || is_same(&p->source, &pod->probe6))
		return true;
	node = node_state();
	if (!node || !node->probers)
		return false;
	prober = bpf_map_lookup_elem(&probes, &key);
	if (!prober || *prober > node->probers)
		return false;
	if (*prober == AMBIENT_PROBER_HOST)
		*verdict = AMBIENT_IN_HOST_PROBE;
	return true;
}

/* Errors about packets that left from the shadow quote the pod's address, where no such socket is. */
static __always_inline int quoted(struct __sk_buff *skb, const struct packet *p,
				  const struct ambient_pod *pod)
{
	const struct ambient_address *shadow = shadow_of(pod, p->ipv4);
	struct packet inner = { .network = p->transport + 8 };
	struct {
		__u16 source;
		__u16 destination;
	} ports;
	__u8 type;

	if (bpf_skb_load_bytes(skb, p->transport, &type, sizeof(type)))
		return TC_ACT_UNSPEC;
	if (p->ipv4 ? type != 3 && type != 11 && type != 12 : type < 1 || type > 4)
		return TC_ACT_UNSPEC;
	if (p->ipv4) {
		struct ipv4_header ip;

		if (bpf_skb_load_bytes(skb, inner.network, &ip, sizeof(ip)) || ip.protocol != IPPROTO_TCP)
			return TC_ACT_UNSPEC;
		inner.source = mapped(ip.source);
		inner.destination = mapped(ip.destination);
		inner.transport = inner.network + (ip.version_length & 15) * 4;
	} else {
		struct ipv6_header ip;

		if (bpf_skb_load_bytes(skb, inner.network, &ip, sizeof(ip)) || ip.next != IPPROTO_TCP)
			return TC_ACT_UNSPEC;
		inner.source = ip.source;
		inner.destination = ip.destination;
		inner.transport = inner.network + sizeof(ip);
	}
	if (!is_same(&inner.source, &p->destination) ||
	    bpf_skb_load_bytes(skb, inner.transport, &ports, sizeof(ports)) ||
	    leg_of(skb, &inner.destination, ports.destination, shadow, ports.source) == NONE)
		return TC_ACT_UNSPEC;
	inner.ipv4 = p->ipv4;
	return write_address(skb, &inner, source_offset(&inner), shadow);
}

static __always_inline int to_shadow(struct __sk_buff *skb, const struct packet *p,
				     const struct ambient_pod *pod)
{
	/* The rest of a fragmented segment has no ports to be told by. */
	if (p->first_fragment) {
		struct ambient_fragment_key key = {
			.source = p->source,
			.destination = p->destination,
			.id = p->fragment_id,
		};
		__u32 one = 1;

		bpf_map_update_elem(&fragments, &key, &one, BPF_ANY);
	}
	return write_address(skb, p, destination_offset(p), shadow_of(pod, p->ipv4));
}

static __always_inline int arriving(struct __sk_buff *skb, bool ethernet)
{
	struct packet p = {};
	enum parsed parsed = parse(skb, ethernet, false, &p);
	struct ambient_owner *owner;
	enum ambient_verdict probe;
	struct ambient_pod *pod;
	enum leg leg;

	if (parsed == NOT_IP)
		return TC_ACT_UNSPEC;
	if (parsed == UNPARSED)
		return dropped(&p.destination, AMBIENT_IN_UNPARSED, &p);
	/* Nobody outside has business with them: an application's wildcard listener would answer. */
	if (is_shadow(&p.destination) || is_spread(&p.destination))
		return TC_ACT_SHOT;
	owner = bpf_map_lookup_elem(&addresses, &p.destination);
	pod = owner && owner->role == AMBIENT_ROLE_POD ? bpf_map_lookup_elem(&pods, &owner->cookie) : NULL;
	if (!pod) {
		/* An address that we know nothing about would lead past ztunnel. */
		if (parsed == TCP && is_syn(&p))
			return TC_ACT_SHOT;
		return TC_ACT_UNSPEC;
	}
	if (parsed == NOT_TCP) {
		if (p.protocol == IPPROTO_ICMP || p.protocol == IPPROTO_ICMPV6)
			return quoted(skb, &p, pod);
		return TC_ACT_UNSPEC;
	}
	if (!p.ipv4 && !(pod->flags & AMBIENT_POD_IPV6))
		return TC_ACT_UNSPEC;
	if (is_zero(shadow_of(pod, p.ipv4)))
		return TC_ACT_UNSPEC;
	if (parsed == LATER_FRAGMENT) {
		struct ambient_fragment_key key = {
			.source = p.source,
			.destination = p.destination,
			.id = p.fragment_id,
		};

		if (!bpf_map_lookup_elem(&fragments, &key))
			return TC_ACT_UNSPEC;
		return write_address(skb, &p, destination_offset(&p), shadow_of(pod, p.ipv4));
	}
	if (p.destination_port == bpf_htons(knobs.port_hbone)) {
		if (is_syn(&p))
			told(owner->cookie, AMBIENT_IN_HBONE, &p);
		return TC_ACT_UNSPEC;
	}
	if (is_syn(&p)) {
		if (pod->flags & (AMBIENT_POD_DRAINING | AMBIENT_POD_RETIRING))
			return TC_ACT_UNSPEC;
		if (!(pod->flags & AMBIENT_POD_INBOUND)) {
			told(owner->cookie, AMBIENT_IN_BYPASSED, &p);
			return TC_ACT_UNSPEC;
		}
		if (is_probe(pod, &p, &probe)) {
			told(owner->cookie, probe, &p);
			return TC_ACT_UNSPEC;
		}
		/* Put together again only behind us: what it says then is not what was seen here. */
		if (p.first_fragment) {
			told(owner->cookie, AMBIENT_IN_UNPARSED, &p);
			return TC_ACT_SHOT;
		}
		told(owner->cookie, AMBIENT_IN_CAPTURED, &p);
		return to_shadow(skb, &p, pod);
	}
	if (leg_of(skb, &p.source, p.source_port, shadow_of(pod, p.ipv4), p.destination_port) != NONE)
		return to_shadow(skb, &p, pod);
	leg = leg_of(skb, &p.source, p.source_port, &p.destination, p.destination_port);
	/* Older than capture, a probe, or outbound of ztunnel or of one that is exempt. */
	if (leg == UNMARKED || leg == MARKED_ZTUNNEL)
		return TC_ACT_UNSPEC;
	/* An ACK that completes a SYN cookie has no socket yet: it goes where its SYN has gone. */
	if (leg == NONE &&
	    ((pod->flags & (AMBIENT_POD_DRAINING | AMBIENT_POD_RETIRING)) || is_probe(pod, &p, &probe)))
		return TC_ACT_UNSPEC;
	/* The application's end of a leg, or nothing: what belongs to nobody gets its reset from the shadow.
	 */
	if (!(pod->flags & AMBIENT_POD_INBOUND))
		return TC_ACT_UNSPEC;
	return to_shadow(skb, &p, pod);
}

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
int ambient_arrive(struct __sk_buff *skb)
{
	return arriving(skb, true);
}

SEC("tc")
int ambient_leave(struct __sk_buff *skb)
{
	return leaving(skb, true);
}

/* For devices without link-layer headers. */
SEC("tc")
int ambient_arrive_l3(struct __sk_buff *skb)
{
	return arriving(skb, false);
}

SEC("tc")
int ambient_leave_l3(struct __sk_buff *skb)
{
	return leaving(skb, false);
}

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
	int verdict;

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
	verdict = steer_to(ctx, owner->cookie, knobs.port_inbound);
	if (verdict == SK_DROP) {
		struct flow flow = { .source = remote, .destination = local, .protocol = IPPROTO_TCP };

		flow.source_port = ctx->remote_port;
		flow.destination_port = bpf_htons(ctx->local_port);
		decided(owner->cookie, AMBIENT_IN_NO_LISTENER, &flow);
	}
	return verdict;
}
