// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * On ztunnel's cgroup: its question for the original destination is answered, and its listeners are
 * entered into the map from which connections are steered to them.
 */
#include "address.h"
#include "verdict.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct sockaddr_in {
	__u16 family;
	__u16 port;
	__u32 address;
	__u64 zero;
};

struct sockaddr_in6 {
	__u16 family;
	__u16 port;
	__u32 flow;
	__u32 address[4];
	__u32 scope;
};

#define PAGE_BYTES 4096

static __always_inline struct ambient_address loopback(bool ipv4)
{
	return ipv4 ? mapped(bpf_htonl(0x7f000001))
		    : (struct ambient_address){ .word = { 0, 0, 0, bpf_htonl(1) } };
}

/*
 * Without the barriers clang 14 computes one address for a field of either branch, and the verifier takes
 * no arithmetic on a socket.
 */
static __always_inline void ends(struct bpf_sock *sk, struct ambient_address *local,
				 struct ambient_address *peer)
{
	if (sk->family == AF_INET) {
		__u32 ip4 = sk->src_ip4;

		*local = mapped(ip4);
		barrier();
		ip4 = sk->dst_ip4;
		barrier();
		*peer = mapped(ip4);
		barrier();
		return;
	}
	local->word[0] = sk->src_ip6[0];
	barrier();
	local->word[1] = sk->src_ip6[1];
	barrier();
	local->word[2] = sk->src_ip6[2];
	barrier();
	local->word[3] = sk->src_ip6[3];
	barrier();
	peer->word[0] = sk->dst_ip6[0];
	barrier();
	peer->word[1] = sk->dst_ip6[1];
	barrier();
	peer->word[2] = sk->dst_ip6[2];
	barrier();
	peer->word[3] = sk->dst_ip6[3];
	barrier();
}

/*
 * A program that runs before ours has told the destination: one of another schema, which captured the
 * connection. What conntrack says of it is the spread address.
 */
static __always_inline bool is_answered(struct bpf_sockopt *ctx)
{
	struct ambient_address told;

	if (ctx->retval != 0)
		return false;
	if (ctx->level == SOL_IP) {
		struct sockaddr_in *answer = ctx->optval;

		if ((void *)(answer + 1) > ctx->optval_end)
			return false;
		told = mapped(answer->address);
	} else {
		struct sockaddr_in6 *answer = ctx->optval;

		if ((void *)(answer + 1) > ctx->optval_end)
			return false;
		told.word[0] = answer->address[0];
		told.word[1] = answer->address[1];
		told.word[2] = answer->address[2];
		told.word[3] = answer->address[3];
	}
	/* Nor is it an answer that nobody knew one. */
	return !is_spread(&told) && !is_loopback(&told);
}

/*
 * Where an accepted connection was meant to go. False: it is not ours to say. `key` is of the entry that
 * told; of family 0, if it was not found.
 */
static __always_inline bool original(struct bpf_sockopt *ctx, struct bpf_sock *sk,
				     struct ambient_destination *to, struct ambient_handshake_key *key)
{
	struct ambient_address local, peer;
	__u64 cookie = bpf_get_netns_cookie(ctx);
	struct ambient_pod *pod = bpf_map_lookup_elem(&pods, &cookie);
	__u16 port = sk->src_port;
	struct ambient_destination *published;

	ends(sk, &local, &peer);
	if (!pod) {
		/* Accepted late, from a pod that has been released: never the local address itself. */
		if (port != knobs.port_outbound || !is_spread(&local) || is_answered(ctx))
			return false;
		to->address = loopback(is_ipv4(&local));
		to->port = bpf_htons(port);
		return true;
	}
	if (is_shadow(&local)) {
		to->address = is_ipv4(&local) ? pod->ip4 : pod->ip6;
		to->port = bpf_htons(port);
		return true;
	}
	if (port != knobs.port_outbound)
		return false;
	if (!is_spread(&local)) {
		/* Redirected by another engine, which conntrack knows about, or called directly. */
		if (ctx->retval == 0)
			return false;
		to->address = loopback(is_ipv4(&local));
		to->port = bpf_htons(port);
		return true;
	}
	key->cookie = cookie;
	key->source = peer;
	key->source_port = sk->dst_port;
	key->spread = bpf_ntohl(local.word[3]) & 0xffff;
	key->family = is_ipv4(&peer) ? AF_INET : AF_INET6;
	published = bpf_map_lookup_elem(&handshakes, key);
	if (published) {
		*to = *published;
		return true;
	}
	key->family = 0;
	if (is_answered(ctx))
		return false;
	/*
	 * Unanswered, ztunnel would take the local address for the destination and connect to itself for
	 * ever. This one it knows for its own and refuses.
	 */
	to->address = loopback(is_ipv4(&local));
	to->port = bpf_htons(port);
	return true;
}

SEC("cgroup/getsockopt")
int ambient_getsockopt(struct bpf_sockopt *ctx)
{
	struct ambient_destination to = {};
	struct ambient_handshake_key key = {};
	struct bpf_sock *sk = ctx->sk;

	/* The kernel has copied one page only and would fail larger answers: 0 leaves them alone. */
	if (ctx->optname != SO_ORIGINAL_DST || (ctx->level != SOL_IP && ctx->level != SOL_IPV6)) {
		if (ctx->optlen > PAGE_BYTES)
			ctx->optlen = 0;
		return 1;
	}
	if (!sk || sk->protocol != IPPROTO_TCP || !is_marked_ztunnel(sk->mark) ||
	    !original(ctx, sk, &to, &key))
		return 1;
	if (ctx->level == SOL_IP) {
		struct sockaddr_in *answer = ctx->optval;

		/* ztunnel asks for IPv4 first, whatever the socket: an answer of the kernel's would be
		 * believed. */
		if (!is_ipv4(&to.address))
			return ctx->retval == 0 ? 0 : 1;
		if ((void *)(answer + 1) > ctx->optval_end)
			return 1;
		answer->family = AF_INET;
		answer->port = to.port;
		answer->address = to.address.word[3];
		answer->zero = 0;
		*(volatile __s32 *)&ctx->optlen = sizeof(*answer);
	} else {
		struct sockaddr_in6 *answer = ctx->optval;

		if (is_ipv4(&to.address) || (void *)(answer + 1) > ctx->optval_end)
			return 1;
		answer->family = AF_INET6;
		answer->port = to.port;
		answer->flow = 0;
		answer->address[0] = to.address.word[0];
		answer->address[1] = to.address.word[1];
		answer->address[2] = to.address.word[2];
		answer->address[3] = to.address.word[3];
		answer->scope = 0;
		*(volatile __s32 *)&ctx->optlen = sizeof(*answer);
	}
	barrier();
	*(volatile __s32 *)&ctx->retval = 0;
	if (key.family) {
		bpf_map_delete_elem(&handshakes, &key);
	} else if (key.source_port) {
		/* Here, as ztunnel asks on both levels: once per connection. */
		count(key.cookie, AMBIENT_OUT_LOST_DESTINATION);
		if (is_monitored()) {
			struct flow flow = { .source = key.source,
					     .destination = to.address,
					     .protocol = IPPROTO_TCP };

			flow.source_port = key.source_port;
			flow.destination_port = to.port;
			tell(key.cookie, AMBIENT_OUT_LOST_DESTINATION, &flow);
		}
	}
	return 1;
}

/* Within listen(): no connection can come before the listener is known. */
static __always_inline int listening(struct bpf_sock_ops *ctx, __u16 slot)
{
	struct ambient_listener_key key = { .slot = slot };
	struct bpf_sock *sk;

	if (ctx->op != BPF_SOCK_OPS_TCP_LISTEN_CB)
		return 1;
	sk = ctx->sk;
	if (!sk || !is_marked_ztunnel(sk->mark))
		return 1;
	key.port = ctx->local_port;
	if (key.port != knobs.port_outbound && key.port != knobs.port_inbound)
		return 1;
	key.cookie = bpf_get_netns_cookie(ctx);
	bpf_sock_hash_update(ctx, &listeners, &key, BPF_ANY);
	return 1;
}

/* One program per slot: a program can't tell by which attachment it runs. */
SEC("sockops")
int ambient_listen0(struct bpf_sock_ops *ctx)
{
	return listening(ctx, 0);
}

SEC("sockops")
int ambient_listen1(struct bpf_sock_ops *ctx)
{
	return listening(ctx, 1);
}
