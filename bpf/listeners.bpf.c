// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Enters listeners that were open before ztunnel's cgroup was hooked, or whose place in the map another
 * one took. In two steps. A kernel trap: until 6.5 the iterator over sockets runs its program with the
 * socket's spin lock held, which entering a socket into a map takes too: the CPU hangs for good (seen on
 * Ubuntu's 5.15). So the first only notes them, and the second goes over what is noted, without any lock.
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

/* The netns' cookie, at each listener that is to be entered. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} noted SEC(".maps");

/* Read by a thread that is in the pod's netns: the iterator sees that netns only. */
SEC("iter/tcp")
int ambient_note(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct sock *sk;
	__u64 cgroup, cookie;

	if (!common)
		return 0;
	/* Listeners come first. Not 0 ends the iteration: the rest is a walk over the whole node's
	 * connections. */
	if (common->skc_state != TCP_LISTEN)
		return 1;
	sk = (struct sock *)common;
	if (common->skc_num != knobs.port_outbound && common->skc_num != knobs.port_inbound)
		return 0;
	if (!is_marked_ztunnel(BPF_CORE_READ(sk, sk_mark)))
		return 0;
	cgroup = cgroup_of(sk);
	if (!bpf_map_lookup_elem(&adoptable, &cgroup))
		return 0;
	cookie = common->skc_net.net->net_cookie;
	bpf_sk_storage_get(&noted, common, &cookie, BPF_SK_STORAGE_GET_F_CREATE);
	return 0;
}

SEC("iter/bpf_sk_storage_map")
int ambient_adopt(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct ambient_listener_key key = { .slot = AMBIENT_SLOT_ADOPTED };
	struct sock *sk = ctx->sk;
	__u64 *cookie = ctx->value;

	if (!sk || !cookie)
		return 0;
	key.cookie = *cookie;
	key.port = sk->__sk_common.skc_num;
	/* Refused for one that has been closed since. */
	bpf_map_update_elem(&listeners, &key, sk, BPF_ANY);
	bpf_sk_storage_delete(&noted, sk);
	return 0;
}
