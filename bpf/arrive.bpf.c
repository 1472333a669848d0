// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The pod's interfaces, inward: what comes for the pod is turned to its shadow address, where only ztunnel
 * listens. The client's leg and the leg to the application then never share a 4-tuple.
 */
#include "legs.h"
#include "rewrite.h"

#define TCP_ACK_OFFSET 8

char LICENSE[] SEC("license") = "Dual BSD/GPL";

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
	struct ambient_probe *probe;

	*verdict = AMBIENT_IN_PROBE;
	if (is_same(&p->source, &pod->probe4) || is_same(&p->source, &pod->probe6))
		return true;
	node = node_state();
	if (!node || !node->probers)
		return false;
	probe = bpf_map_lookup_elem(&probes, &key);
	/* An old one is of another connection: what the node forwards may come to wear its port. */
	if (!probe || probe->prober > node->probers ||
	    bpf_ktime_get_ns() - probe->nanoseconds > AMBIENT_PROBE_NANOSECONDS)
		return false;
	if (probe->prober == AMBIENT_PROBER_HOST)
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

/*
 * Whether a connection at the shadow has this packet. One in TIME_WAIT has no claim on a new one with the
 * same ends, whose SYN was let past the shadow: what they acknowledge tells them apart.
 */
static __noinline bool is_at_shadow(struct __sk_buff *skb, const struct packet *p,
				    const struct ambient_address *shadow)
{
	struct bpf_sock *sk = socket_of(skb, &p->source, p->source_port, shadow, p->destination_port);
	struct tcp_timewait_sock *waiting;
	bool has = false;
	__be32 acked;

	if (!sk)
		return false;
	if (sk->state == TCP_TIME_WAIT_STATE) {
		waiting = bpf_skc_to_tcp_timewait_sock(sk);
		has = waiting &&
		      !bpf_skb_load_bytes(skb, p->transport + TCP_ACK_OFFSET, &acked, sizeof(acked)) &&
		      bpf_ntohl(acked) == waiting->tw_sk.__tw_common.skc_tw_snd_nxt;
	} else if (sk->state != TCP_LISTEN_STATE) {
		has = true;
	}
	bpf_sk_release(sk);
	return has;
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

enum answering { NOBODY, ZTUNNEL, SOMEBODY_ELSE };

/*
 * Who would answer a SYN at the shadow. Somebody else than ztunnel does, whoever listens on every address,
 * when the sk_lookup program has been taken off the netns.
 */
static __noinline enum answering answering(struct __sk_buff *skb, const struct packet *p,
					   const struct ambient_address *shadow)
{
	struct bpf_sock *sk = socket_of(skb, &p->source, p->source_port, shadow, p->destination_port);
	enum answering who;

	if (!sk)
		return NOBODY;
	/* Not a listener: ztunnel's leg of before, or one that is closing. */
	who = sk->state != TCP_LISTEN_STATE || is_marked_ztunnel(mark_of(sk)) ? ZTUNNEL : SOMEBODY_ELSE;
	bpf_sk_release(sk);
	return who;
}

static __always_inline int arriving(struct __sk_buff *skb, bool ethernet)
{
	struct packet p = {};
	enum parsed parsed = parse(skb, ethernet, false, &p);
	struct ambient_owner *owner;
	enum ambient_verdict probe;
	enum answering who;
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
	if ((!p.ipv4 && !(pod->flags & AMBIENT_POD_IPV6)) || is_zero(shadow_of(pod, p.ipv4))) {
		if (parsed == TCP && is_syn(&p))
			heard(owner->cookie, AMBIENT_IN_FAMILY, &p);
		return TC_ACT_UNSPEC;
	}
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
		if (pod->flags & (AMBIENT_POD_DRAINING | AMBIENT_POD_RETIRING)) {
			/* Retiring: it is another engine's to decide. */
			if (!(pod->flags & AMBIENT_POD_RETIRING))
				heard(owner->cookie, AMBIENT_IN_DRAINING, &p);
			return TC_ACT_UNSPEC;
		}
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
		who = answering(skb, &p, shadow_of(pod, p.ipv4));
		told(owner->cookie, who == ZTUNNEL ? AMBIENT_IN_CAPTURED : AMBIENT_IN_NO_LISTENER, &p);
		if (who == SOMEBODY_ELSE)
			return TC_ACT_SHOT;
		return to_shadow(skb, &p, pod);
	}
	if (is_at_shadow(skb, &p, shadow_of(pod, p.ipv4)))
		return to_shadow(skb, &p, pod);
	/* What is redirected behind us, or was, has no socket here. */
	if (pod->flags & (AMBIENT_POD_DRAINING | AMBIENT_POD_RETIRING | AMBIENT_POD_BESIDE))
		return TC_ACT_UNSPEC;
	leg = leg_of(skb, &p.source, p.source_port, &p.destination, p.destination_port);
	/* Older than capture, a probe, or outbound of ztunnel or of one that is exempt. */
	if (leg == UNMARKED || leg == MARKED_ZTUNNEL)
		return TC_ACT_UNSPEC;
	/* An ACK that completes a SYN cookie has no socket yet: it goes where its SYN has gone. */
	if (leg == NONE && is_probe(pod, &p, &probe))
		return TC_ACT_UNSPEC;
	/* The application's end of a leg, or nothing, which gets its reset from the shadow. */
	if (!(pod->flags & AMBIENT_POD_INBOUND))
		return TC_ACT_UNSPEC;
	return to_shadow(skb, &p, pod);
}

SEC("tc")
int ambient_arrive(struct __sk_buff *skb)
{
	return arriving(skb, true);
}

/* For devices without link-layer headers. */
SEC("tc")
int ambient_arrive_l3(struct __sk_buff *skb)
{
	return arriving(skb, false);
}
