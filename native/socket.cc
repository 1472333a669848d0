// SPDX-License-Identifier: Apache-2.0
#include "socket.h"

#include <arpa/inet.h>
#include <linux/in6.h>
#include <netinet/in.h>

#include <cerrno>
#include <cstring>

#include "address.h"
#include "fault.h"
#include "netns_scope.h"

#ifndef IPV6_TRANSPARENT
#define IPV6_TRANSPARENT 75
#endif
#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78
#endif

namespace ambient {

namespace {

/** SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST; the netfilter headers clash with netinet/in.h. */
constexpr int kOriginalDestination = 80;

void setOption(const UniqueFd& fd, int level, int option, int value, const std::string& what,
               const char* name) {
    if (::setsockopt(fd.get(), level, option, &value, sizeof(value)) != 0) {
        fail(errno, "setsockopt", what, name);
    }
}

Napi::Value endpoint(Napi::Env env, const SocketAddress& address) {
    std::string ip;
    uint16_t port = 0;
    if (address.storage.ss_family == AF_INET) {
        sockaddr_in in;
        std::memcpy(&in, &address.storage, sizeof(in));
        ip = formatIp(AF_INET, &in.sin_addr, sizeof(in.sin_addr));
        port = ntohs(in.sin_port);
    } else if (address.storage.ss_family == AF_INET6) {
        sockaddr_in6 in;
        std::memcpy(&in, &address.storage, sizeof(in));
        ip = formatIp(AF_INET6, &in.sin6_addr, sizeof(in.sin6_addr));
        port = ntohs(in.sin6_port);
    } else {
        fail(EAFNOSUPPORT, "getsockname", "read an endpoint");
    }
    Napi::Object result = Napi::Object::New(env);
    result.Set("address", ip);
    result.Set("port", static_cast<uint32_t>(port));
    return result;
}

} // namespace

SocketAddress socketAddress(int family, const std::string& ip, uint16_t port) {
    IpBytes bytes = parseIp(family, ip);
    SocketAddress address;
    if (family == AF_INET) {
        sockaddr_in in = {};
        in.sin_family = AF_INET;
        in.sin_port = htons(port);
        std::memcpy(&in.sin_addr, bytes.bytes, bytes.size);
        std::memcpy(&address.storage, &in, sizeof(in));
        address.size = sizeof(in);
    } else {
        sockaddr_in6 in = {};
        in.sin6_family = AF_INET6;
        in.sin6_port = htons(port);
        std::memcpy(&in.sin6_addr, bytes.bytes, bytes.size);
        std::memcpy(&address.storage, &in, sizeof(in));
        address.size = sizeof(in);
    }
    return address;
}

UniqueFd openSocket(int netns, int type, const Fields& options, const std::string& what) {
    const int family = options.family("family");
    const bool v6 = family == AF_INET6;
    UniqueFd fd = socketIn(netns, family, type, 0, what.c_str());
    if (options.has("v6Only")) {
        setOption(fd, SOL_IPV6, IPV6_V6ONLY, options.flag("v6Only"), what, "IPV6_V6ONLY");
    }
    if (options.flag("reuseAddress")) {
        setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1, what, "SO_REUSEADDR");
    }
    if (options.flag("reusePort")) setOption(fd, SOL_SOCKET, SO_REUSEPORT, 1, what, "SO_REUSEPORT");
    if (options.flag("transparent")) {
        setOption(fd, v6 ? SOL_IPV6 : SOL_IP, v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT, 1, what,
                  "IP_TRANSPARENT");
    }
    if (options.flag("freebind")) {
        setOption(fd, v6 ? SOL_IPV6 : SOL_IP, v6 ? IPV6_FREEBIND : IP_FREEBIND, 1, what,
                  "IP_FREEBIND");
    }
    if (auto mark = options.optionalNumber("mark")) {
        setOption(fd, SOL_SOCKET, SO_MARK, static_cast<int>(*mark), what, "SO_MARK");
    }
    if (options.has("device")) {
        const std::string device = requireInterfaceName(options.string("device"));
        if (::setsockopt(fd.get(), SOL_SOCKET, SO_BINDTODEVICE, device.c_str(),
                         static_cast<socklen_t>(device.size() + 1)) != 0) {
            fail(errno, "setsockopt", what, "SO_BINDTODEVICE " + device);
        }
    }
    if (auto bind = options.object("bind")) {
        SocketAddress address = socketAddress(family, bind->string("address"),
                                              static_cast<uint16_t>(bind->number("port", 65535)));
        if (::bind(fd.get(), address.get(), address.size) != 0) {
            fail(errno, "bind", what, describe(address));
        }
    }
    return fd;
}

std::string describe(const SocketAddress& address) {
    const bool v6 = address.storage.ss_family == AF_INET6;
    if (!v6 && address.storage.ss_family != AF_INET) return "";
    sockaddr_in in;
    sockaddr_in6 in6;
    std::memcpy(&in, &address.storage, sizeof(in));
    std::memcpy(&in6, &address.storage, sizeof(in6));
    std::string port = std::to_string(ntohs(v6 ? in6.sin6_port : in.sin_port));
    if (v6) return "[" + formatIp(AF_INET6, &in6.sin6_addr, 16) + "]:" + port;
    return formatIp(AF_INET, &in.sin_addr, 4) + ":" + port;
}

Napi::Value tcpListen(const Napi::CallbackInfo& info) {
    Args args(info);
    const Fields options = args.object(1, "options");
    UniqueFd fd = openSocket(args.netns(0), SOCK_STREAM, options, "listen");
    const uint32_t backlog = options.optionalNumber("backlog", 65535).value_or(511);
    if (::listen(fd.get(), static_cast<int>(backlog)) != 0) fail(errno, "listen", "listen");
    return Napi::Number::New(info.Env(), fd.release());
}

Napi::Value udpSocket(const Napi::CallbackInfo& info) {
    Args args(info);
    UniqueFd fd =
        openSocket(args.netns(0), SOCK_DGRAM, args.object(1, "options"), "open a UDP socket");
    return Napi::Number::New(info.Env(), fd.release());
}

Napi::Value originalDestination(const Napi::CallbackInfo& info) {
    int fd = Args(info).fd(0, "fd");
    for (int level : {SOL_IP, SOL_IPV6}) {
        SocketAddress address;
        // Netfilter insists on the exact size of the IPv4 structure or more.
        address.size = level == SOL_IP ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
        if (::getsockopt(fd, level, kOriginalDestination, address.get(), &address.size) == 0) {
            return endpoint(info.Env(), address);
        }
        if (errno == EBADF || errno == ENOTSOCK)
            fail(errno, "getsockopt", "read fd " + std::to_string(fd));
    }
    return info.Env().Undefined();
}

Napi::Value localEndpoint(const Napi::CallbackInfo& info) {
    int fd = Args(info).fd(0, "fd");
    SocketAddress address;
    if (::getsockname(fd, address.get(), &address.size) != 0) {
        fail(errno, "getsockname", "read the local endpoint of fd " + std::to_string(fd));
    }
    return endpoint(info.Env(), address);
}

Napi::Value remoteEndpoint(const Napi::CallbackInfo& info) {
    int fd = Args(info).fd(0, "fd");
    SocketAddress address;
    if (::getpeername(fd, address.get(), &address.size) != 0) {
        fail(errno, "getpeername", "read the remote endpoint of fd " + std::to_string(fd));
    }
    return endpoint(info.Env(), address);
}

Napi::Value socketMark(const Napi::CallbackInfo& info) {
    int fd = Args(info).fd(0, "fd");
    uint32_t mark = 0;
    socklen_t size = sizeof(mark);
    if (::getsockopt(fd, SOL_SOCKET, SO_MARK, &mark, &size) != 0) {
        fail(errno, "getsockopt", "read the mark of fd " + std::to_string(fd));
    }
    return Napi::Number::New(info.Env(), mark);
}

} // namespace ambient
