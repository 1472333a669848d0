// SPDX-License-Identifier: Apache-2.0
#include "netns.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "args.h"
#include "fault.h"
#include "netns_scope.h"
#include "short_thread.h"
#include "unique_fd.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

namespace ambient {

namespace {

void requireNetns(int fd, const std::string& what) {
    struct statfs fs = {};
    if (::fstatfs(fd, &fs) != 0) fail(errno, "fstatfs", what);
    if (fs.f_type != NSFS_MAGIC || ::ioctl(fd, NS_GET_NSTYPE) != CLONE_NEWNET) {
        fail(EINVAL, "ioctl", what, "not a network namespace");
    }
}

void loopbackUp() {
    UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!fd) fail(errno, "socket", "bring lo up");
    ifreq request = {};
    std::strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP | IFF_LOOPBACK;
    if (::ioctl(fd.get(), SIOCSIFFLAGS, &request) != 0) fail(errno, "ioctl", "bring lo up");
}

} // namespace

Napi::Value closeFd(const Napi::CallbackInfo& info) {
    int fd = Args(info).fd(0, "fd");
    // Linux frees the number even when close(2) is interrupted: never repeat it.
    if (::close(fd) != 0 && errno != EINTR) fail(errno, "close", "close fd " + std::to_string(fd));
    return info.Env().Undefined();
}

Napi::Value netnsOpen(const Napi::CallbackInfo& info) {
    std::string path = Args(info).string(0, "path");
    std::string what = "open network namespace " + path;
    // O_NONBLOCK: the path comes from outside, a FIFO must not hold us.
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (!fd) fail(errno, "open", what);
    requireNetns(fd.get(), what);
    return Napi::Number::New(info.Env(), fd.release());
}

Napi::Value netnsCreate(const Napi::CallbackInfo& info) {
    UniqueFd created;
    runInShortThread([&] {
        if (::unshare(CLONE_NEWNET) != 0) fail(errno, "unshare", "create a network namespace");
        loopbackUp();
        created.reset(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
        if (!created) fail(errno, "open", "hold the new network namespace");
    });
    return Napi::Number::New(info.Env(), created.release());
}

Napi::Value netnsIdentify(const Napi::CallbackInfo& info) {
    int fd = Args(info).fd(0, "netns");
    std::string what = "identify network namespace fd " + std::to_string(fd);
    requireNetns(fd, what);
    struct stat status = {};
    if (::fstat(fd, &status) != 0) fail(errno, "fstat", what);
    Napi::Object result = Napi::Object::New(info.Env());
    result.Set("dev", bigint(info.Env(), status.st_dev));
    result.Set("ino", bigint(info.Env(), status.st_ino));
    return result;
}

Napi::Value netnsCookie(const Napi::CallbackInfo& info) {
    int netns = Args(info).netns(0);
    constexpr const char* what = "read the network namespace's cookie";
    UniqueFd fd = socketIn(netns, AF_UNIX, SOCK_DGRAM, 0, what);
    uint64_t cookie = 0;
    socklen_t size = sizeof(cookie);
    if (::getsockopt(fd.get(), SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size) != 0) {
        fail(errno, "getsockopt", what, "kernel 5.14 or later is needed");
    }
    return bigint(info.Env(), cookie);
}

Napi::Value openFds(const Napi::CallbackInfo& info) {
    std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir("/proc/self/fd"), ::closedir);
    if (!directory) fail(errno, "opendir", "count open fds");
    uint32_t count = 0;
    while (const dirent* entry = ::readdir(directory.get())) {
        if (entry->d_name[0] != '.') count++;
    }
    // The directory stream is itself one of them.
    return Napi::Number::New(info.Env(), count - 1);
}

} // namespace ambient
