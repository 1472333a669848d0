// SPDX-License-Identifier: Apache-2.0
// /proc/sys/net shows the netns of the thread that opens the file, so both directions need no more
// than an open inside. In an unprivileged container /proc/sys is mounted read-only; another mount
// of proc, reachable by nothing but an fd of ours, is writable and changes nobody's view. Where the
// new mount calls (5.2) are refused, a thread with a mount namespace of its own remounts what it
// sees.
#include "sysctl.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#include <atomic>
#include <cerrno>
#include <mutex>

#include "args.h"
#include "fault.h"
#include "netns_scope.h"
#include "short_thread.h"
#include "unique_fd.h"

namespace ambient {

namespace {

std::string pathOf(const std::string& key) {
    bool valid = key.rfind("net/", 0) == 0 && key.size() < 256 && key.back() != '/';
    for (size_t start = 0; valid && start <= key.size();) {
        size_t end = key.find('/', start);
        if (end == std::string::npos) end = key.size();
        std::string part = key.substr(start, end - start);
        if (part.empty() || part == "." || part == "..") valid = false;
        start = end + 1;
    }
    if (!valid) fail(EINVAL, "open", "read sysctl key \"" + key + "\"", "not a path below net/");
    return "/proc/sys/" + key;
}

/** Room for a list of all ports. */
constexpr size_t kMaxValue = 512 * 1024;
/** Of a value in an error. */
constexpr size_t kMaxShown = 64;

/** Stands for /proc where a mount of proc is asked for. */
constexpr int kProc = -1;

/** A sysctl is read as a whole, at its beginning, and cut to the room there is. */
std::string readValue(int fd, const std::string& key) {
    std::string value;
    for (size_t room : {size_t{4096}, kMaxValue}) {
        value.resize(room);
        const ssize_t size = ::pread(fd, value.data(), room, 0);
        if (size < 0) fail(errno, "read", "read sysctl " + key);
        value.resize(static_cast<size_t>(size));
        if (value.size() < room) break;
    }
    while (!value.empty() && value.back() == '\n')
        value.pop_back();
    return value;
}

std::string setting(const std::string& key, const std::string& value) {
    const bool whole = value.size() <= kMaxShown;
    return "set sysctl " + key + " to " + (whole ? value : value.substr(0, kMaxShown) + "...");
}

/** Returns the value before. `root`: an fd of a mount of proc. */
std::string swap(int root, int netns, const std::string& key, const std::string& value) {
    const std::string what = setting(key, value);
    const std::string path = root == kProc ? pathOf(key) : pathOf(key).substr(sizeof("/proc"));
    NetnsScope scope(netns);
    UniqueFd fd(::openat(root == kProc ? AT_FDCWD : root, path.c_str(), O_RDWR | O_CLOEXEC));
    if (!fd) fail(errno, "open", what);
    const std::string before = readValue(fd.get(), key);
    if (before == value) return before;
    // A sysctl takes what is written at its beginning for a whole new value. Of a list longer than
    // a page it takes a part (proc_do_large_bitmap), and adds what is written behind it.
    size_t written = 0;
    do {
        const ssize_t part = ::pwrite(fd.get(), value.data() + written, value.size() - written,
                                      static_cast<off_t>(written));
        if (part < 0) fail(errno, "write", what);
        if (part == 0 && !value.empty()) fail(EIO, "write", what);
        written += static_cast<size_t>(part);
    } while (written < value.size());
    return before;
}

/**
 * A writable mount of proc that is in no mount namespace: it keeps no other mount alive, as a
 * lasting copy of our namespace would. Made once for the process; -1 where that is refused.
 */
int ownProc() {
    static std::mutex mutex;
    static UniqueFd mount;
    std::lock_guard<std::mutex> lock(mutex);
    if (mount) return mount.get();
    UniqueFd context(::fsopen("proc", FSOPEN_CLOEXEC));
    if (!context || ::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
        return -1;
    }
    mount.reset(::fsmount(context.get(), FSMOUNT_CLOEXEC,
                          MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
    return mount.get();
}

/** Makes the calling thread's own view of `path` writable. False when `path` is no mount point. */
bool remountWritable(const char* path, const std::string& what) {
    struct statvfs status = {};
    if (::statvfs(path, &status) != 0) fail(errno, "statvfs", what);
    unsigned long flags = MS_REMOUNT | MS_BIND;
    // A bind remount states all flags anew: keep those that are not in the way.
    if ((status.f_flag & ST_NOSUID) != 0) flags |= MS_NOSUID;
    if ((status.f_flag & ST_NODEV) != 0) flags |= MS_NODEV;
    if ((status.f_flag & ST_NOEXEC) != 0) flags |= MS_NOEXEC;
    if (::mount(nullptr, path, nullptr, flags, nullptr) == 0) return true;
    if (errno == EINVAL) return false;
    fail(errno, "mount", what, std::string("remounting ") + path + " writable was refused");
}

void ownMountNamespace(const std::string& what) {
    if (::unshare(CLONE_NEWNS) != 0) {
        fail(errno, "unshare", what, "/proc/sys is read-only and a mount namespace was refused");
    }
    // Otherwise the remount might reach the namespace this one was copied from.
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 &&
        ::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) {
        fail(errno, "mount", what, "/proc/sys is read-only and mounts cannot be made private");
    }
}

} // namespace

Napi::Value sysctlGet(const Napi::CallbackInfo& info) {
    Args args(info);
    const std::string key = args.string(1, "key");
    const std::string path = pathOf(key);
    UniqueFd fd;
    {
        NetnsScope scope(args.netns(0));
        fd.reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        if (!fd) fail(errno, "open", "read sysctl " + key);
    }
    return Napi::String::New(info.Env(), readValue(fd.get(), key));
}

Napi::Value sysctlSet(const Napi::CallbackInfo& info) {
    Args args(info);
    const int netns = args.netns(0);
    const std::string key = args.string(1, "key");
    const std::string value = args.string(2, "value", kMaxValue);
    const auto told = [&](const std::string& before) {
        return Napi::String::New(info.Env(), before);
    };
    // Where /proc/sys was read-only once, it is for every key.
    static std::atomic<bool> readOnly{false};
    if (!readOnly) {
        try {
            return told(swap(kProc, netns, key, value));
        } catch (const Fault& fault) {
            if (fault.error != EROFS) throw;
            readOnly = true;
        }
    }
    if (int proc = ownProc(); proc >= 0) return told(swap(proc, netns, key, value));
    std::string before;
    runInShortThread([&] {
        const std::string what = setting(key, value);
        ownMountNamespace(what);
        // Some runtimes mount all of /proc read-only instead of binding /proc/sys over itself.
        if (!remountWritable("/proc/sys", what)) remountWritable("/proc", what);
        before = swap(kProc, netns, key, value);
    });
    return told(before);
}

} // namespace ambient
