// SPDX-License-Identifier: Apache-2.0
// For a command that becomes a shell: what this thread enters here it never leaves, and what it
// starts from then on is there too. Not for the agent.
#include "enter.h"

#include <sched.h>
#include <unistd.h>

#include <cerrno>

#include "args.h"
#include "fault.h"

namespace ambient {

Napi::Value enterNetns(const Napi::CallbackInfo& info) {
    const int netns = Args(info).fd(0, "netns");
    if (::setns(netns, CLONE_NEWNET) != 0) {
        fail(errno, "setns", "enter network namespace fd " + std::to_string(netns));
    }
    return info.Env().Undefined();
}

Napi::Value enterRoot(const Napi::CallbackInfo& info) {
    const std::string root = Args(info).string(0, "root");
    const std::string what = "enter the file system at " + root;
    if (::chroot(root.c_str()) != 0) fail(errno, "chroot", what);
    if (::chdir("/") != 0) fail(errno, "chdir", what);
    return info.Env().Undefined();
}

} // namespace ambient
