// SPDX-License-Identifier: Apache-2.0
#include "mount.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>

#include "args.h"
#include "fault.h"
#include "short_thread.h"
#include "unique_fd.h"

namespace ambient {

namespace {

constexpr const char* kBpffs = "/sys/fs/bpf";

bool isBpffs(const std::string& what) {
    struct statfs fs = {};
    if (::statfs(kBpffs, &fs) != 0) fail(errno, "statfs", what);
    return fs.f_type == BPF_FS_MAGIC;
}

} // namespace

Napi::Value mountBpffs(const Napi::CallbackInfo& info) {
    const std::string path = Args(info).string(0, "mountNamespace");
    const std::string what = std::string("mount a bpffs at ") + kBpffs + " of " + path;
    UniqueFd target(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (!target) fail(errno, "open", what);
    bool mounted = false;
    runInShortThread([&] {
        // A mount namespace can only be joined by a thread that shares its root and working
        // directory with no other.
        if (::unshare(CLONE_FS) != 0) fail(errno, "unshare", what);
        if (::setns(target.get(), CLONE_NEWNS) != 0) {
            fail(errno, "setns", what, "CAP_SYS_ADMIN and CAP_SYS_CHROOT are needed");
        }
        if (isBpffs(what)) return;
        // As systemd mounts it.
        constexpr unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RELATIME;
        if (::mount("bpf", kBpffs, "bpf", flags, "mode=700") != 0) fail(errno, "mount", what);
        mounted = true;
    });
    return Napi::Boolean::New(info.Env(), mounted);
}

/** Calls of 5.2, which a C library older than the kernel has no names for. */
Napi::Value bpffsCreate(const Napi::CallbackInfo& info) {
    const std::string what = "make a bpffs";
    UniqueFd context(static_cast<int>(::syscall(SYS_fsopen, "bpf", FSOPEN_CLOEXEC)));
    if (!context) fail(errno, "fsopen", what);
    if (::syscall(SYS_fsconfig, context.get(), FSCONFIG_SET_STRING, "mode", "700", 0) != 0 ||
        ::syscall(SYS_fsconfig, context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
        fail(errno, "fsconfig", what);
    }
    UniqueFd mount(static_cast<int>(::syscall(SYS_fsmount, context.get(), FSMOUNT_CLOEXEC, 0)));
    if (!mount) fail(errno, "fsmount", what);
    return Napi::Number::New(info.Env(), mount.release());
}

} // namespace ambient
