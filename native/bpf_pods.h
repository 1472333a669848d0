// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "../bpf/abi.h"
#include "bpf_node.h"

namespace ambient {

/** All that is known about one captured pod. */
struct BpfPod {
    ambient_pod pod = {};
    std::vector<ambient_address> locals;
    std::vector<ambient_address> nameservers;
    std::vector<ambient_exclude_key> excludes;
};

/**
 * Writes lists first and the pod last: from then on it is captured. Stale entries of lists go. A
 * pod that is there keeps an empty plan until all of that is done, also when it fails.
 */
void writePod(const BpfNode& node, uint64_t cookie, const BpfPod& pod);
/** Changes only flags of a pod that is there. @throws Fault ENOENT. */
void writePodFlags(const BpfNode& node, uint64_t cookie, uint32_t flags);
std::optional<ambient_pod> readPod(const BpfNode& node, uint64_t cookie);
/** Names of what is not as in `pod`. */
std::vector<std::string> podDifferences(const BpfNode& node, uint64_t cookie, const BpfPod& pod);
/**
 * The pod first: from then on it is not captured. Of a pod that is not there, what a writer that
 * was killed has left goes. Idempotent; addresses of others stay.
 */
void deletePod(const BpfNode& node, uint64_t cookie);
/** Deletes a netns cookie's entry from the pinned map of another schema. @throws Fault. */
void eraseFrom(const std::string& path, uint64_t cookie);
std::vector<uint64_t> podCookies(const BpfNode& node);

/** Sums over all CPUs. */
ambient_counters readCounters(const BpfNode& node, uint64_t cookie);

/** Which of ztunnel's ports has a listener in the map, in any slot. */
bool hasListener(const BpfNode& node, uint64_t cookie, uint16_t port);

} // namespace ambient
