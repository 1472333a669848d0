// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Outbound, at connect() and sendmsg(): the destination of a pod's socket becomes ztunnel's listener in
 * the same netns, so that no packet ever has to be rewritten. Attached to the cgroup of all pods; acts on
 * sockets of captured pods only.
 */
#include "decide.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline int refused(void)
{
	/*
	 * The helper is of 5.18, but these programs may use it only since 6.1, as which the youngest helper
	 * of that version tells the kernel. Without it the caller reads EPERM.
	 */
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_user_ringbuf_drain))
		bpf_set_retval(-ECONNREFUSED);
	return 0;
}

/*
 * Decides about a connect(). On CAPTURE, CAPTURE_DNS and VERIFY the caller writes `r->to` and `r->port`
 * into the context: the verifier wants each context field written in one place only.
 */
static __always_inline enum action connecting(struct bpf_sock_addr *ctx, struct request *r)
{
	struct bpf_sock *sk = ctx->sk;
	struct ambient_destination *kept;
	enum action action;
	__u32 mark, device;

	if (!sk || !is_captured_pod(ctx, r))
		return PASS;
	r->protocol = ctx->protocol;
	if (r->protocol != IPPROTO_TCP && r->protocol != IPPROTO_UDP)
		return PASS;
	/*
	 * A socket may be connected again, to somewhere else: getpeername() must not tell the old. What these
	 * programs have turned already, attached to another cgroup on the way up too, is no new destination.
	 */
	if (!is_spread(&r->to) && !(is_loopback(&r->to) && r->port == bpf_htons(knobs.port_dns))) {
		bpf_sk_storage_delete(&destinations, sk);
		bpf_sk_storage_delete(&asked, sk);
	}
	mark = sk->mark;
	/* Led to lo whatever its destination: another engine verifies itself while this one is in charge. */
	if (mark != knobs.verify_mark && (mark & knobs.mark_mask) == knobs.local_mark)
		return PASS;
	device = sk->bound_dev_if;
	r->ztunnel = is_ztunnel(mark);
	r->verify = mark == knobs.verify_mark;
	action = choose(r);
	if (action == PASS || action == REFUSE)
		return action;
	if (action == VERIFY) {
		r->to = first_spread(is_ipv4(&r->to));
		return action;
	}
	kept = bpf_sk_storage_get(&destinations, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!kept) {
		/* Not remembered is not found again: refused rather than sent to a wrong place. */
		told(r, AMBIENT_OUT_REFUSED_FULL);
		return REFUSE;
	}
	kept->address = r->to;
	kept->port = r->port;
	if (is_marked_ztunnel(mark)) {
		/* An application that wears ztunnel's mark: `lo` would take it for ztunnel. */
		__u32 none = 0;

		bpf_setsockopt(ctx, SOL_SOCKET, 36 /* SO_MARK */, &none, sizeof(none));
	}
	if (device) {
		/* Bound to eth0, it would never reach an address of lo. */
		char nothing[4] = "";

		if (bpf_setsockopt(ctx, SOL_SOCKET, SO_BINDTODEVICE, nothing, sizeof(nothing))) {
			/* The kernel asks the caller for CAP_NET_RAW. Refused at once, not after minutes. */
			told(r, AMBIENT_OUT_REFUSED_DEVICE);
			return REFUSE;
		}
	}
	if (action == CAPTURE) {
		told(r, AMBIENT_OUT_CAPTURED);
		r->to = spread_of(&r->to, r->port);
		r->port = bpf_htons(knobs.port_outbound);
	} else {
		r->to = is_ipv4(&r->to) ? mapped(bpf_htonl(0x7f000001))
					: (struct ambient_address){ .word = { 0, 0, 0, bpf_htonl(1) } };
		r->port = bpf_htons(knobs.port_dns);
	}
	return action;
}

SEC("cgroup/connect4")
int ambient_connect4(struct bpf_sock_addr *ctx)
{
	struct request r = { .to = mapped(ctx->user_ip4), .port = ctx->user_port };
	enum action action = connecting(ctx, &r);

	if (action == PASS)
		return 1;
	if (action == REFUSE)
		return refused();
	ctx->user_ip4 = r.to.word[3];
	ctx->user_port = r.port;
	return 1;
}

SEC("cgroup/connect6")
int ambient_connect6(struct bpf_sock_addr *ctx)
{
	struct request r = { .to = user_ip6(ctx), .port = ctx->user_port };
	enum action action = connecting(ctx, &r);

	if (action == PASS)
		return 1;
	if (action == REFUSE)
		return refused();
	set_user_ip6(ctx, &r.to);
	ctx->user_port = r.port;
	return 1;
}

SEC("cgroup/getpeername4")
int ambient_getpeername4(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct ambient_destination *kept = sk ? bpf_sk_storage_get(&destinations, sk, 0, 0) : NULL;

	if (kept) {
		ctx->user_ip4 = kept->address.word[3];
		ctx->user_port = kept->port;
	}
	return 1;
}

SEC("cgroup/getpeername6")
int ambient_getpeername6(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct ambient_destination *kept = sk ? bpf_sk_storage_get(&destinations, sk, 0, 0) : NULL;

	if (kept) {
		set_user_ip6(ctx, &kept->address);
		ctx->user_port = kept->port;
	}
	return 1;
}

static __always_inline bool handshake_of(struct bpf_sock_ops *ctx, struct ambient_handshake_key *key)
{
	__u32 last;

	key->cookie = bpf_get_netns_cookie(ctx);
	key->source_port = bpf_htons(ctx->local_port);
	/* An IPv6 socket may be connected over IPv4: its IPv6 fields then hold mapped addresses. */
	if (ctx->family == AF_INET6) {
		key->source.word[0] = ctx->local_ip6[0];
		barrier();
		key->source.word[1] = ctx->local_ip6[1];
		barrier();
		key->source.word[2] = ctx->local_ip6[2];
		barrier();
		key->source.word[3] = ctx->local_ip6[3];
		barrier();
		last = ctx->remote_ip6[3];
	} else if (ctx->family == AF_INET) {
		key->source = mapped(ctx->local_ip4);
		last = ctx->remote_ip4;
	} else {
		return false;
	}
	key->spread = bpf_ntohl(last) & 0xffff;
	key->family = is_ipv4(&key->source) ? AF_INET : AF_INET6;
	return true;
}

/*
 * The source port is known and no SYN has been sent: from here on ztunnel can be told where the connection
 * was meant to go.
 */
SEC("sockops")
int ambient_sockops(struct bpf_sock_ops *ctx)
{
	struct ambient_handshake_key key = {};
	struct ambient_destination *kept, destination;
	struct bpf_sock *sk;

	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		sk = ctx->sk;
		if (!sk)
			return 1;
		kept = bpf_sk_storage_get(&destinations, sk, 0, 0);
		/* ztunnel doesn't ask about a question for a nameserver: its entry would never go. */
		if (!kept || bpf_ntohl(ctx->remote_port) != knobs.port_outbound || !handshake_of(ctx, &key))
			return 1;
		destination = *kept;
		bpf_map_update_elem(&handshakes, &key, &destination, BPF_ANY);
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
		return 1;
	case BPF_SOCK_OPS_STATE_CB:
		sk = ctx->sk;
		if (!sk || ctx->args[0] != BPF_TCP_SYN_SENT || !bpf_sk_storage_get(&destinations, sk, 0, 0))
			return 1;
		/* Given up: nobody will ask, and entries of other handshakes need the room. */
		if (ctx->args[1] == BPF_TCP_CLOSE && handshake_of(ctx, &key))
			bpf_map_delete_elem(&handshakes, &key);
		return 1;
	}
	return 1;
}
