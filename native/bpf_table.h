// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bpf/bpf.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <vector>

#include "bpf_node.h"
#include "fault.h"

namespace ambient {

// Entries of a BPF map, with the types of bpf/abi.h. Every function throws Fault, with the map's
// name.

/**
 * As bpf_map_update_elem(). Entries come from a cache that the kernel refills aside: many new ones
 * in a row may find it empty for a moment (ENOMEM, seen after some thousand pods), which is waited
 * for.
 */
int update(int map, const void* key, const void* value, uint64_t flags);

template <class Key, class Value>
void put(const BpfNode& node, const char* map, const Key& key, const Value& value,
         uint64_t flags = BPF_ANY) {
    if (update(node.map(map), &key, &value, flags) == 0) return;
    fail(errno, "bpf", std::string("write to BPF map ") + map,
         errno == E2BIG || errno == ENOSPC ? "it is full" : "");
}

template <class Key, class Value>
bool get(const BpfNode& node, const char* map, const Key& key, Value& value) {
    if (bpf_map_lookup_elem(node.map(map), &key, &value) == 0) return true;
    if (errno == ENOENT) return false;
    fail(errno, "bpf", std::string("read BPF map ") + map);
}

template <class Key> void erase(const BpfNode& node, const char* map, const Key& key) {
    if (bpf_map_delete_elem(node.map(map), &key) == 0 || errno == ENOENT) return;
    fail(errno, "bpf", std::string("delete from BPF map ") + map);
}

/** All keys; entries that come and go meanwhile may be missing or told twice. */
template <class Key> std::vector<Key> keys(const BpfNode& node, const char* map) {
    std::vector<Key> found;
    Key key;
    int error = bpf_map_get_next_key(node.map(map), nullptr, &key);
    while (error == 0) {
        found.push_back(key);
        error = bpf_map_get_next_key(node.map(map), &found.back(), &key);
    }
    return found;
}

} // namespace ambient
