// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "netlink.h"

namespace ambient {

/** The chain that a rule's expressions (NFTA_RULE_EXPRESSIONS) jump or go to, or "". */
std::string jumpOf(const Attribute& expressions);

/** The comment that iptables-nft keeps in a match of its own, or "". */
std::string xtablesComment(const Attribute& expressions);

} // namespace ambient
