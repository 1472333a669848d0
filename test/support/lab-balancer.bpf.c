// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// See lab-balancer.c.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

struct address {
    __u32 word[4];
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 8);
    __type(key, struct address);
    __type(value, struct address);
} backends SEC(".maps");

SEC("cgroup/connect4")
int balance4(struct bpf_sock_addr* ctx) {
    struct address service = {.word = {0, 0, 0, ctx->user_ip4}};
    struct address* backend = bpf_map_lookup_elem(&backends, &service);

    if (backend) ctx->user_ip4 = backend->word[3];
    return 1;
}

SEC("cgroup/connect6")
int balance6(struct bpf_sock_addr* ctx) {
    struct address service;
    struct address* backend;

    _Pragma("unroll") for (int i = 0; i < 4; i++) service.word[i] =
        *(volatile __u32*)&ctx->user_ip6[i];
    backend = bpf_map_lookup_elem(&backends, &service);
    if (!backend) return 1;
    *(volatile __u32*)&ctx->user_ip6[0] = backend->word[0];
    *(volatile __u32*)&ctx->user_ip6[1] = backend->word[1];
    *(volatile __u32*)&ctx->user_ip6[2] = backend->word[2];
    *(volatile __u32*)&ctx->user_ip6[3] = backend->word[3];
    return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
