/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Every map, each pinned by its name: all objects and all generations of programs share them. */
#ifndef AMBIENT_MAPS_H
#define AMBIENT_MAPS_H

#include "abi.h"
#include "kernel.h"

const volatile struct ambient_knobs knobs = {};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, AMBIENT_MAX_PODS);
	__type(key, __u64);
	__type(value, struct ambient_pod);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pods SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, AMBIENT_MAX_ADDRESSES);
	__type(key, struct ambient_address);
	__type(value, struct ambient_owner);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, AMBIENT_MAX_POD_ADDRESSES);
	__type(key, struct ambient_pod_address_key);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pod_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, AMBIENT_MAX_EXCLUDES);
	__type(key, struct ambient_exclude_key);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} excludes SEC(".maps");

/* What a socket of a pod was really connected to. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct ambient_destination);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} destinations SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct ambient_asked);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} asked SEC(".maps");

/* Sized for handshakes in flight: an entry goes when ztunnel has asked for it. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, AMBIENT_MAX_HANDSHAKES);
	__type(key, struct ambient_handshake_key);
	__type(value, struct ambient_destination);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} handshakes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, AMBIENT_MAX_LISTENERS);
	__type(key, struct ambient_listener_key);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} listeners SEC(".maps");

/* cgroups whose listeners may be adopted: only those that the getsockopt program is attached to. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 64);
	__type(key, __u64);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} adoptable SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, AMBIENT_MAX_FRAGMENTS);
	__type(key, struct ambient_fragment_key);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} fragments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, AMBIENT_MAX_PROBES);
	__type(key, struct ambient_probe_key);
	__type(value, struct ambient_probe);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} probes SEC(".maps");

/* Ids of the cgroups of ztunnels' pods. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, AMBIENT_MAX_ZTUNNELS);
	__type(key, __u64);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} ztunnels SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ambient_state);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} state SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, AMBIENT_MAX_PODS);
	__type(key, __u64);
	__type(value, struct ambient_counters);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, AMBIENT_MONITOR_PLACES);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} monitor SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, AMBIENT_EVENTS_BYTES);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} events SEC(".maps");

#endif
