// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ambient {

struct XtChain {
    /** `policy`: "accept" or "drop", "" for a chain that is reached by jump. */
    std::string name, policy;
};

struct XtRule {
    /** `jump`: the chain it jumps or goes to, "" for another target. */
    std::string chain, comment, jump;
    uint64_t digest = 0, packets = 0;
};

struct XtTable {
    std::string name;
    std::vector<XtChain> chains;
    std::vector<XtRule> rules;
};

/**
 * Tables of legacy iptables (AF_INET) or ip6tables (AF_INET6) that exist in a netns. Asking the
 * kernel for one that does not exist would make it, so only those that /proc names are asked for.
 */
std::vector<XtTable> readXtables(int netns, int family);

} // namespace ambient
