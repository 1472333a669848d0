// SPDX-License-Identifier: Apache-2.0
#include "address.h"

#include <arpa/inet.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

#include <cctype>
#include <cerrno>

#include "fault.h"

namespace ambient {

IpBytes parseIp(int family, const std::string& text) {
    IpBytes ip;
    ip.size = family == AF_INET ? 4 : 16;
    if (::inet_pton(family, text.c_str(), ip.bytes) != 1) {
        fail(EINVAL, "inet_pton", "parse \"" + text + "\"",
             family == AF_INET ? "not an IPv4 address" : "not an IPv6 address");
    }
    return ip;
}

int familyOfText(const std::string& text) {
    return text.find(':') == std::string::npos ? AF_INET : AF_INET6;
}

std::string formatIp(int family, const void* bytes, size_t size) {
    if (size < (family == AF_INET ? 4U : 16U)) return "";
    char text[INET6_ADDRSTRLEN] = {};
    if (::inet_ntop(family, bytes, text, sizeof(text)) == nullptr) return "";
    return text;
}

std::string anyIp(int family) {
    return family == AF_INET ? "0.0.0.0" : "::";
}

std::string scopeName(uint8_t scope) {
    switch (scope) {
    case RT_SCOPE_UNIVERSE:
        return "global";
    case RT_SCOPE_SITE:
        return "site";
    case RT_SCOPE_LINK:
        return "link";
    case RT_SCOPE_HOST:
        return "host";
    default:
        return std::to_string(scope);
    }
}

const std::string& requireInterfaceName(const std::string& name) {
    bool valid = !name.empty() && name.size() < IFNAMSIZ && name != "." && name != "..";
    for (unsigned char c : name) {
        if (c == '/' || c == ':' || std::isspace(c) != 0) valid = false;
    }
    if (!valid) fail(EINVAL, "netlink", "name an interface \"" + name + "\"");
    return name;
}

} // namespace ambient
