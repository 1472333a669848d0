// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Enters listeners that were open before ztunnel's cgroup was hooked, or whose place in the map another
 * one took. Read by a thread that is in the pod's netns: the iterator sees that netns only.
 */
#include "address.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define TCP_LISTEN 10

static __always_inline __u64 cgroup_of(struct sock *sk)
{
	struct cgroup *cgroup;

	if (bpf_core_field_exists(sk->sk_cgrp_data.cgroup))
		cgroup = BPF_CORE_READ(sk, sk_cgrp_data.cgroup);
	else
		cgroup = (struct cgroup *)BPF_CORE_READ((struct sock_cgroup_data___old *)&sk->sk_cgrp_data,
							val);
	return BPF_CORE_READ(cgroup, kn, id);
}

SEC("iter/tcp")
int ambient_adopt(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct ambient_listener_key key = { .slot = AMBIENT_SLOT_ADOPTED };
	struct sock *sk;
	__u64 cgroup;

	if (!common)
		return 0;
	/* Listeners come first. Not 0 ends the iteration: the rest is a walk over the whole node's
	 * connections. */
	if (common->skc_state != TCP_LISTEN)
		return 1;
	sk = (struct sock *)common;
	key.port = common->skc_num;
	if (key.port != knobs.port_outbound && key.port != knobs.port_inbound)
		return 0;
	if (!is_marked_ztunnel(BPF_CORE_READ(sk, sk_mark)))
		return 0;
	cgroup = cgroup_of(sk);
	if (!bpf_map_lookup_elem(&adoptable, &cgroup))
		return 0;
	key.cookie = common->skc_net.net->net_cookie;
	bpf_map_update_elem(&listeners, &key, common, BPF_ANY);
	return 0;
}
