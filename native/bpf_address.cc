// SPDX-License-Identifier: Apache-2.0
#include "bpf_address.h"

#include <arpa/inet.h>

#include <cerrno>
#include <cstring>

#include "address.h"
#include "fault.h"

namespace ambient {

bool isZero(const ambient_address& address) {
    static const ambient_address zero = {};
    return std::memcmp(&address, &zero, sizeof(zero)) == 0;
}

ambient_address bpfAddress(const std::string& text) {
    const int family = familyOfText(text);
    const IpBytes ip = parseIp(family, text);
    ambient_address address = {};
    if (family == AF_INET6) {
        std::memcpy(&address, ip.bytes, 16);
    } else {
        address.word[2] = htonl(0xffff);
        std::memcpy(&address.word[3], ip.bytes, 4);
    }
    return address;
}

std::string bpfAddressText(const ambient_address& address) {
    if (isZero(address)) return "";
    const bool mapped =
        address.word[0] == 0 && address.word[1] == 0 && address.word[2] == htonl(0xffff);
    return mapped ? formatIp(AF_INET, &address.word[3], 4) : formatIp(AF_INET6, &address, 16);
}

ambient_exclude_key excludeKey(uint64_t cookie, const std::string& cidr) {
    const size_t slash = cidr.find('/');
    const std::string ip = cidr.substr(0, slash);
    const uint32_t most = familyOfText(ip) == AF_INET ? 32 : 128;
    uint32_t bits = most;
    if (slash != std::string::npos) {
        const std::string digits = cidr.substr(slash + 1);
        if (digits.empty() || digits.size() > 3 ||
            digits.find_first_not_of("0123456789") != std::string::npos ||
            (bits = static_cast<uint32_t>(std::stoul(digits))) > most) {
            fail(EINVAL, "bpf", "read CIDR " + cidr);
        }
    }
    ambient_exclude_key key = {};
    key.prefix_bits = 64 + (128 - most) + bits;
    key.cookie[0] = static_cast<uint32_t>(cookie);
    key.cookie[1] = static_cast<uint32_t>(cookie >> 32);
    key.address = bpfAddress(ip);
    return key;
}

} // namespace ambient
