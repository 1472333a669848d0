// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "../bpf/abi.h"
#include "bpf_node.h"

namespace ambient {

/** 16 bytes as the programs have them, IPv4 mapped. @throws Fault EINVAL that names the text. */
ambient_address bpfAddress(const std::string& text);
/** "" for the zero address; IPv4 in its own form. */
std::string bpfAddressText(const ambient_address& address);

/** All that is known about one captured pod. */
struct BpfPod {
    ambient_pod pod = {};
    std::vector<ambient_address> locals;
    std::vector<ambient_address> nameservers;
    std::vector<ambient_exclude_key> excludes;
};

/** An entry of `excludes` for a CIDR. */
ambient_exclude_key excludeKey(uint64_t cookie, const std::string& cidr);

/** Writes lists first and the pod last: from then on it is captured. Stale entries of lists go. */
void writePod(const BpfNode& node, uint64_t cookie, const BpfPod& pod);
/** Changes only flags of a pod that is there. @throws Fault ENOENT. */
void writePodFlags(const BpfNode& node, uint64_t cookie, uint32_t flags);
std::optional<ambient_pod> readPod(const BpfNode& node, uint64_t cookie);
/** Names of what is not as in `pod`. */
std::vector<std::string> podDifferences(const BpfNode& node, uint64_t cookie, const BpfPod& pod);
/** The pod first: from then on it is not captured. Idempotent; addresses of others stay. */
void deletePod(const BpfNode& node, uint64_t cookie);
/** Deletes a netns cookie's entry from the pinned map of another schema. @throws Fault. */
void eraseFrom(const std::string& path, uint64_t cookie);
std::vector<uint64_t> podCookies(const BpfNode& node);

/** cgroup ids in `ztunnels`. */
std::vector<uint64_t> ztunnelIds(const BpfNode& node);

/** Sums over all CPUs. */
ambient_counters readCounters(const BpfNode& node, uint64_t cookie);

/** Which of ztunnel's ports has a listener in the map, in any slot. */
bool hasListener(const BpfNode& node, uint64_t cookie, uint16_t port);

} // namespace ambient
