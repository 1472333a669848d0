// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>
#include <sys/socket.h>

#include "args.h"
#include "unique_fd.h"

namespace ambient {

/** Any socket address, with its length. */
struct SocketAddress {
    sockaddr_storage storage = {};
    socklen_t size = sizeof(sockaddr_storage);

    sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

SocketAddress socketAddress(int family, const std::string& ip, uint16_t port);

/** "10.0.0.1:80" or "[::1]:80"; "" for families other than IP. */
std::string describe(const SocketAddress& address);

/** A socket in a netns with every option of SocketOptions set, bound if asked for. */
UniqueFd openSocket(int netns, int type, const Fields& options, const std::string& what);

Napi::Value tcpListen(const Napi::CallbackInfo& info);
Napi::Value udpSocket(const Napi::CallbackInfo& info);
Napi::Value originalDestination(const Napi::CallbackInfo& info);
Napi::Value localEndpoint(const Napi::CallbackInfo& info);
Napi::Value remoteEndpoint(const Napi::CallbackInfo& info);
Napi::Value socketMark(const Napi::CallbackInfo& info);

} // namespace ambient
