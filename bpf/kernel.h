/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The few fields of kernel structures that the programs read, relocated at load time (CO-RE), and
 * constants whose headers clash with the ones of BPF.
 */
#ifndef AMBIENT_KERNEL_H
#define AMBIENT_KERNEL_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_ICMPV6 58
#define SOL_SOCKET 1
#define SO_BINDTODEVICE 25
#define SOL_IP 0
#define SOL_IPV6 41
/* SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST are the same number. */
#define SO_ORIGINAL_DST 80
#define ECONNREFUSED 111
#define TC_ACT_UNSPEC (-1)
#define TC_ACT_SHOT 2
#define SK_LOOPBACK_IFINDEX 1

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct net {
	__u64 net_cookie;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct sock_common {
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	__u16 skc_num;
	/* Of a socket in TIME_WAIT. */
	__u32 skc_tw_snd_nxt;
};

struct kernfs_node {
	__u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

/* Before 5.16 the pointer shared a word with the marks of two v1 controllers. */
struct sock_cgroup_data___old {
	__u64 val;
};

struct sock {
	struct sock_common __sk_common;
	__u32 sk_mark;
	struct sock_cgroup_data sk_cgrp_data;
};

struct inet_timewait_sock {
	struct sock_common __tw_common;
	__u32 tw_mark;
};

struct tcp_timewait_sock {
	struct inet_timewait_sock tw_sk;
};

struct inet_request_sock {
	__u32 ir_mark;
};

struct tcp_request_sock {
	struct inet_request_sock req;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
};

struct bpf_map;

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	struct sock *sk;
	void *value;
};

#pragma clang attribute pop

/* The compiler must not merge or move what is on both sides: the verifier refuses merged context accesses. */
#define barrier() asm volatile("" ::: "memory")

#endif
