// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Outbound, questions to nameservers on unconnected sockets: they go to ztunnel's DNS port in the same
 * netns, and answers are shown as coming from the server that was asked.
 */
#include "decide.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Place of the server among those that the socket has asked, or AMBIENT_MAX_ASKED. */
static __always_inline __u32 remember_asked(struct bpf_sock *sk, const struct request *r)
{
	struct ambient_asked *known = bpf_sk_storage_get(&asked, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	__u32 at;

	if (!known)
		return AMBIENT_MAX_ASKED;
	for (at = 0; at < AMBIENT_MAX_ASKED; at++) {
		if (known->server[at].port == r->port && is_same(&known->server[at].address, &r->to))
			break;
	}
	if (at == AMBIENT_MAX_ASKED) {
		at = known->next % AMBIENT_MAX_ASKED;
		known->server[at].address = r->to;
		known->server[at].port = r->port;
		known->next++;
	}
	known->last = at;
	return at;
}

/*
 * An unconnected question. Not AMBIENT_MAX_ASKED: the caller writes loopback and ztunnel's DNS port, and,
 * unless the socket is bound to an address, a source address that tells which server was asked: the answer
 * comes back to it (see ambient_loopback), so that several servers asked by one socket are told apart.
 */
static __always_inline __u32 asking(struct bpf_sock_addr *ctx, struct request *r)
{
	struct bpf_sock *sk = ctx->sk;

	if (r->port != bpf_htons(53) || !sk || !is_captured_pod(ctx, r))
		return AMBIENT_MAX_ASKED;
	r->protocol = IPPROTO_UDP;
	r->ztunnel = is_ztunnel(sk->mark);
	/* Its device can't be changed here, and from another one loopback can't be reached. */
	if (sk->bound_dev_if || choose(r) != CAPTURE_DNS)
		return AMBIENT_MAX_ASKED;
	return remember_asked(sk, r);
}

SEC("cgroup/sendmsg4")
int ambient_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct request r = { .to = mapped(ctx->user_ip4), .port = ctx->user_port };
	__u32 at = asking(ctx, &r);

	if (at == AMBIENT_MAX_ASKED)
		return 1;
	ctx->user_ip4 = bpf_htonl(0x7f000001);
	ctx->user_port = bpf_htons(knobs.port_dns);
	if (ctx->msg_src_ip4 == 0 && !is_zero(&r.pod->shadow4))
		ctx->msg_src_ip4 = knobs.spread4.word[3] | bpf_htonl(at);
	return 1;
}

SEC("cgroup/sendmsg6")
int ambient_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct request r = { .to = user_ip6(ctx), .port = ctx->user_port };
	__u32 at = asking(ctx, &r);
	struct ambient_address loopback = { .word = { 0, 0, 0, bpf_htonl(1) } };

	if (at == AMBIENT_MAX_ASKED)
		return 1;
	set_user_ip6(ctx, &loopback);
	ctx->user_port = bpf_htons(knobs.port_dns);
	if (ctx->msg_src_ip6[3] != 0 || is_zero(&r.pod->shadow6))
		return 1;
	ctx->msg_src_ip6[0] = knobs.spread6.word[0];
	barrier();
	ctx->msg_src_ip6[1] = knobs.spread6.word[1];
	barrier();
	ctx->msg_src_ip6[2] = knobs.spread6.word[2];
	barrier();
	ctx->msg_src_ip6[3] = knobs.spread6.word[3] | bpf_htonl(at);
	return 1;
}

/* Who was asked, when the answer comes from ztunnel's DNS port. */
static __always_inline bool answered(struct bpf_sock_addr *ctx, const struct ambient_address *from,
				     __u16 port, struct ambient_destination *server)
{
	struct bpf_sock *sk = ctx->sk;
	struct ambient_destination *kept;
	struct ambient_asked *known;
	bool told = is_spread(from);

	if (port != bpf_htons(knobs.port_dns) || !sk || (!told && !is_loopback(from)))
		return false;
	known = bpf_sk_storage_get(&asked, sk, 0, 0);
	if (known) {
		__u32 at = told ? bpf_ntohl(from->word[3]) : known->last;

		*server = known->server[at % AMBIENT_MAX_ASKED];
		return true;
	}
	kept = bpf_sk_storage_get(&destinations, sk, 0, 0);
	if (!kept)
		return false;
	*server = *kept;
	return true;
}

SEC("cgroup/recvmsg4")
int ambient_recvmsg4(struct bpf_sock_addr *ctx)
{
	struct ambient_address from = mapped(ctx->user_ip4);
	struct ambient_destination server;

	if (answered(ctx, &from, ctx->user_port, &server)) {
		ctx->user_ip4 = server.address.word[3];
		ctx->user_port = server.port;
	}
	return 1;
}

SEC("cgroup/recvmsg6")
int ambient_recvmsg6(struct bpf_sock_addr *ctx)
{
	struct ambient_address from = user_ip6(ctx);
	struct ambient_destination server;

	if (answered(ctx, &from, ctx->user_port, &server)) {
		set_user_ip6(ctx, &server.address);
		ctx->user_port = server.port;
	}
	return 1;
}
