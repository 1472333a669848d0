// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "unique_fd.h"

namespace ambient {

/** Stands for "the netns of the process" wherever a netns fd is asked for. */
constexpr int kOwnNetns = -1;

/**
 * Puts the calling thread into a netns for the life of the object, and back.
 * No JavaScript may run inside. When the thread cannot come back the process aborts: going on would
 * mean to act on the wrong pod. Scopes don't nest: an inner one would come back to the outer netns.
 */
class NetnsScope {
  public:
    /** @throws Fault, with the thread where it was. */
    explicit NetnsScope(int netns);
    ~NetnsScope();
    NetnsScope(const NetnsScope&) = delete;
    NetnsScope& operator=(const NetnsScope&) = delete;

  private:
    bool entered_ = false;
};

/** Opens now what the calling thread's first scope would: one fd per thread, for its life. */
void prepareNetnsScopes();

/**
 * socket(2) inside a netns, close-on-exec and non-blocking. A socket keeps its netns for life, so
 * everything after its creation is done from outside.
 */
UniqueFd socketIn(int netns, int domain, int type, int protocol, const char* what);

} // namespace ambient
