// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Outbound, at connect() and sendmsg(): the destination of a pod's socket becomes ztunnel's listener in
 * the same netns, so that no packet ever has to be rewritten. Attached to the cgroup of all pods; acts on
 * sockets of captured pods only.
 */
#include "address.h"
#include "verdict.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

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

static __always_inline void told(const struct request *r, enum ambient_verdict verdict)
{
	struct flow flow = {
		.source = is_ipv4(&r->to) ? r->pod->ip4 : r->pod->ip6,
		.destination = r->to,
		.destination_port = r->port,
		.protocol = r->protocol,
	};

	decided(r->cookie, verdict, &flow);
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
		if (tcp && !r->ztunnel)
			told(r, AMBIENT_OUT_LOCAL);
		return PASS;
	}
	if (r->ztunnel || (pod->flags & AMBIENT_POD_DRAINING))
		return PASS;
	if (is_ipv4(&r->to) ? is_zero(&pod->ip4) : !(pod->flags & AMBIENT_POD_IPV6) || is_zero(&pod->ip6))
		return PASS;
	if (tcp && (is_same(&r->to, &pod->probe4) || is_same(&r->to, &pod->probe6)))
		return PASS;
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

static __always_inline int refused(void)
{
	/* 5.18. Without it the caller reads EPERM. */
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_set_retval))
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
	/* A socket may be connected again, to somewhere else: getpeername() must not tell the old. */
	bpf_sk_storage_delete(&destinations, sk);
	mark = sk->mark;
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

		bpf_setsockopt(ctx, SOL_SOCKET, SO_BINDTODEVICE, nothing, sizeof(nothing));
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
		if (!kept || !handshake_of(ctx, &key))
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
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags & ~BPF_SOCK_OPS_STATE_CB_FLAG);
		return 1;
	}
	return 1;
}
