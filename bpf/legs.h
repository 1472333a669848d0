/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * An inbound connection has two legs: client to ztunnel, whose local address is the pod's shadow, and
 * ztunnel in the client's name to the application. Both carry the client's address, and may carry the
 * same ports: the socket that a packet belongs to tells the leg.
 */
#ifndef AMBIENT_LEGS_H
#define AMBIENT_LEGS_H

#include "parse.h"

#define TCP_ESTABLISHED_STATE 1
#define TCP_TIME_WAIT_STATE 6
#define TCP_LISTEN_STATE 10
#define TCP_NEW_SYN_RECV_STATE 12

enum leg {
	/* No socket, or a listener only. */
	NONE,
	MARKED_LOCAL,
	MARKED_ZTUNNEL,
	UNMARKED,
};

static __always_inline __u32 mark_of(struct bpf_sock *sk)
{
	struct tcp_timewait_sock *waiting;
	struct tcp_request_sock *request;
	__u32 mark = 0;

	/*
	 * The mark of a socket without its whole body is only found through its type. The barriers keep clang
	 * 14 from computing one address for all three: the verifier takes no arithmetic on a socket.
	 */
	if (sk->state == TCP_TIME_WAIT_STATE) {
		waiting = bpf_skc_to_tcp_timewait_sock(sk);
		if (waiting)
			mark = waiting->tw_sk.tw_mark;
		barrier();
		return mark;
	}
	if (sk->state == TCP_NEW_SYN_RECV_STATE) {
		request = bpf_skc_to_tcp_request_sock(sk);
		if (request)
			mark = request->req.ir_mark;
		barrier();
		return mark;
	}
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 0;
	mark = sk->mark;
	barrier();
	return mark;
}

/* The socket of the pod with these ends, seen from the pod: `remote` sends, `local` receives. To be released.
 */
static __always_inline struct bpf_sock *socket_of(struct __sk_buff *skb, const struct ambient_address *remote,
						  __u16 remote_port, const struct ambient_address *local,
						  __u16 local_port)
{
	struct bpf_sock_tuple tuple = {};

	if (is_ipv4(local)) {
		tuple.ipv4.saddr = remote->word[3];
		tuple.ipv4.daddr = local->word[3];
		tuple.ipv4.sport = remote_port;
		tuple.ipv4.dport = local_port;
		return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	__builtin_memcpy(tuple.ipv6.saddr, remote, sizeof(*remote));
	__builtin_memcpy(tuple.ipv6.daddr, local, sizeof(*local));
	tuple.ipv6.sport = remote_port;
	tuple.ipv6.dport = local_port;
	return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
}

static __noinline enum leg leg_of(struct __sk_buff *skb, const struct ambient_address *remote,
				  __u16 remote_port, const struct ambient_address *local, __u16 local_port)
{
	struct bpf_sock *sk = socket_of(skb, remote, remote_port, local, local_port);
	enum leg leg = NONE;
	__u32 mark;

	if (!sk)
		return NONE;
	if (sk->state != TCP_LISTEN_STATE) {
		mark = mark_of(sk) & knobs.mark_mask;
		leg = mark == knobs.local_mark	   ? MARKED_LOCAL
		      : mark == knobs.ztunnel_mark ? MARKED_ZTUNNEL
						   : UNMARKED;
	}
	bpf_sk_release(sk);
	return leg;
}

#endif
