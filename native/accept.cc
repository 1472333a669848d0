// SPDX-License-Identifier: Apache-2.0
#include "accept.h"

#include <sys/socket.h>

#include <cerrno>

#include "args.h"
#include "fault.h"

namespace ambient {

Napi::Value tcpAccept(const Napi::CallbackInfo& info) {
    const int listener = Args(info).fd(0, "fd");
    int fd = -1;
    do {
        fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    } while (fd < 0 && errno == EINTR);
    // ECONNABORTED: the connection that waited was reset meanwhile.
    if (fd < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != ECONNABORTED) {
        fail(errno, "accept4", "accept on fd " + std::to_string(listener));
    }
    return Napi::Number::New(info.Env(), fd);
}

} // namespace ambient
