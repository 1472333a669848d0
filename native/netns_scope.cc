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

namespace {

/** Where this thread came from, remembered at its first scope: hundreds of scopes make one
 * enrolment. */
thread_local UniqueFd threadHome;
thread_local bool inside = false;

int openHome() {
    // /proc/self would be the main thread's, which need not be this one.
    const int fd = ::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (fd < 0) fail(errno, "open", "remember the current network namespace");
    return fd;
}

} // namespace

void prepareNetnsScopes() {
    if (!threadHome) threadHome.reset(openHome());
}

NetnsScope::NetnsScope(int netns) {
    if (netns == kOwnNetns) return;
    if (inside) std::abort();
    prepareNetnsScopes();
    if (::setns(netns, CLONE_NEWNET) != 0) {
        fail(errno, "setns", "enter network namespace fd " + std::to_string(netns));
    }
    entered_ = inside = true;
}

NetnsScope::~NetnsScope() {
    if (!entered_) return;
    inside = false;
    if (::setns(threadHome.get(), CLONE_NEWNET) != 0) {
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
