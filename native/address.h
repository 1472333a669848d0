// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>

namespace ambient {

/** The bytes of an IP address in network order. */
struct IpBytes {
    uint8_t bytes[16] = {};
    size_t size = 0;
};

/** @throws Fault EINVAL that names the text. `family` is AF_INET or AF_INET6. */
IpBytes parseIp(int family, const std::string& text);

/** AF_INET6 when the text holds a colon, else AF_INET. */
int familyOfText(const std::string& text);

/** "" when `size` does not fit the family. */
std::string formatIp(int family, const void* bytes, size_t size);

/** "0.0.0.0" or "::". */
std::string anyIp(int family);

/** Name of an rtnetlink scope as ip(8) writes it, "link" for RT_SCOPE_LINK; else the number. */
std::string scopeName(uint8_t scope);

/** @throws Fault EINVAL when the kernel would refuse the name (dev_valid_name). */
const std::string& requireInterfaceName(const std::string& name);

} // namespace ambient
