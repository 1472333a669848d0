// SPDX-License-Identifier: Apache-2.0
#include "rename.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "args.h"
#include "fault.h"

namespace ambient {

namespace {

/** Not every C library has a function for it. */
Napi::Value rename(const Napi::CallbackInfo& info, unsigned flags, const char* verb,
                   const char* joint) {
    const std::string from = Args(info).string(0, "from");
    const std::string to = Args(info).string(1, "to");
    if (::syscall(SYS_renameat2, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags) != 0) {
        fail(errno, "renameat2", std::string(verb) + " " + from + joint + to);
    }
    return info.Env().Undefined();
}

} // namespace

Napi::Value fileExchange(const Napi::CallbackInfo& info) {
    return rename(info, RENAME_EXCHANGE, "exchange", " and ");
}

Napi::Value fileMove(const Napi::CallbackInfo& info) {
    return rename(info, RENAME_NOREPLACE, "move", " to ");
}

} // namespace ambient
