// SPDX-License-Identifier: Apache-2.0
#include "netns_scope.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "fault.h"

namespace ambient {

NetnsScope::NetnsScope(int netns) {
    if (netns == kOwnNetns) return;
    // /proc/self would be the main thread's, which need not be this one.
    home_.reset(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    if (!home_) fail(errno, "open", "remember the current network namespace");
    if (::setns(netns, CLONE_NEWNET) != 0) {
        int error = errno;
        home_.reset();
        fail(error, "setns", "enter network namespace fd " + std::to_string(netns));
    }
}

NetnsScope::~NetnsScope() {
    if (!home_) return;
    if (::setns(home_.get(), CLONE_NEWNET) != 0) {
        std::fprintf(stderr, "cannot leave a foreign network namespace: %s\n",
                     std::strerror(errno));
        std::abort();
    }
}

UniqueFd socketIn(int netns, int domain, int type, int protocol, const char* what) {
    NetnsScope scope(netns);
    UniqueFd fd(::socket(domain, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol));
    if (!fd) fail(errno, "socket", what);
    return fd;
}

} // namespace ambient
