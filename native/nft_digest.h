// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "digest.h"
#include "netlink.h"

namespace ambient {

struct NftCounter {
    uint64_t packets = 0, bytes = 0;
};

/** The digest of an anonymous set's content, by the set's name. */
using AnonymousSet = std::function<uint64_t(const std::string&)>;

/**
 * Adds a list of expressions (NFTA_RULE_EXPRESSIONS) to a digest, without what traffic changes in
 * them. Anonymous sets count by content: their names are only numbers. Sums counters into
 * `counter`.
 */
void digestExpressions(Digest& digest, const Attribute& list, NftCounter& counter,
                       const AnonymousSet& anonymous);

} // namespace ambient
