// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Probes: a connection that a process of the node opens to a captured pod is announced to the pod's
 * interface before its SYN is sent, which lets exactly this one pass.
 */
#include "address.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Both programs run within one connect(). */
#define AMBIENT_SAME_CONNECT (1000ULL * 1000)

static __always_inline int announce(struct bpf_sock_ops *ctx, __u32 prober)
{
	struct ambient_probe probe = { .prober = prober };
	struct ambient_probe_key key = {};
	struct ambient_probe *known;
	struct ambient_state *node;
	struct ambient_owner *owner;
	__u32 zero = 0;

	if (ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB)
		return 1;
	node = bpf_map_lookup_elem(&state, &zero);
	if (!node || bpf_get_netns_cookie(ctx) != node->host_cookie)
		return 1;
	if (ctx->family == AF_INET) {
		key.source = mapped(ctx->local_ip4);
		key.destination = mapped(ctx->remote_ip4);
	} else if (ctx->family == AF_INET6) {
		key.source.word[0] = ctx->local_ip6[0];
		barrier();
		key.source.word[1] = ctx->local_ip6[1];
		barrier();
		key.source.word[2] = ctx->local_ip6[2];
		barrier();
		key.source.word[3] = ctx->local_ip6[3];
		barrier();
		key.destination.word[0] = ctx->remote_ip6[0];
		barrier();
		key.destination.word[1] = ctx->remote_ip6[1];
		barrier();
		key.destination.word[2] = ctx->remote_ip6[2];
		barrier();
		key.destination.word[3] = ctx->remote_ip6[3];
		barrier();
	} else {
		return 1;
	}
	owner = bpf_map_lookup_elem(&addresses, &key.destination);
	if (!owner || owner->role != AMBIENT_ROLE_POD)
		return 1;
	key.source_port = bpf_htons(ctx->local_port);
	/* In network order, but in the upper half on little-endian machines. */
	key.destination_port = bpf_htons(bpf_ntohl(ctx->remote_port));
	/* The narrower word wins: kubelet's cgroup runs before the root's. */
	known = bpf_map_lookup_elem(&probes, &key);
	probe.nanoseconds = bpf_ktime_get_ns();
	if (known && known->prober < prober && probe.nanoseconds - known->nanoseconds < AMBIENT_SAME_CONNECT)
		return 1;
	bpf_map_update_elem(&probes, &key, &probe, BPF_ANY);
	return 1;
}

SEC("sockops")
int ambient_kubelet(struct bpf_sock_ops *ctx)
{
	return announce(ctx, AMBIENT_PROBER_KUBELET);
}

SEC("sockops")
int ambient_host(struct bpf_sock_ops *ctx)
{
	return announce(ctx, AMBIENT_PROBER_HOST);
}
