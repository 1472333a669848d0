// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "../bpf/abi.h"

namespace ambient {

/** 16 bytes as the programs have them, IPv4 mapped. @throws Fault EINVAL that names the text. */
ambient_address bpfAddress(const std::string& text);
/** "" for the zero address; IPv4 in its own form. */
std::string bpfAddressText(const ambient_address& address);
bool isZero(const ambient_address& address);
/** An entry of `excludes` for a CIDR. @throws Fault EINVAL that names the text. */
ambient_exclude_key excludeKey(uint64_t cookie, const std::string& cidr);

} // namespace ambient
