// SPDX-License-Identifier: Apache-2.0
#include "program.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstdlib>

#include "fault.h"
#include "netns_scope.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

namespace ambient {

namespace {

/** ms. A killed process ends as soon as the kernel lets it go; nothing waits for ever for that. */
constexpr int kLastWait = 1000;

/** The file that execvpe(3) would run, sought in the PATH that the program will have. */
std::string fileOf(const Program& program) {
    const std::string& name = program.argv.front();
    const std::string what = "start " + name;
    if (name.find('/') != std::string::npos) return name;
    int error = ENOENT;
    for (const std::string& variable : program.environment) {
        if (variable.rfind("PATH=", 0) != 0) continue;
        for (size_t begin = 5; begin <= variable.size();) {
            size_t end = variable.find(':', begin);
            if (end == std::string::npos) end = variable.size();
            const std::string file = variable.substr(begin, end - begin) + "/" + name;
            if (::faccessat(AT_FDCWD, file.c_str(), X_OK, AT_EACCESS) == 0) return file;
            if (errno == EACCES) error = EACCES;
            begin = end + 1;
        }
    }
    fail(error, "execve", what);
}

std::vector<char*> pointers(const std::vector<std::string>& strings) {
    std::vector<char*> list;
    for (const std::string& string : strings)
        list.push_back(const_cast<char*>(string.c_str()));
    list.push_back(nullptr);
    return list;
}

void check(int error, const std::string& what) {
    if (error != 0) fail(error, "posix_spawn", what);
}

/** What posix_spawn(3) is to do in the child. */
class Preparation {
  public:
    explicit Preparation(const std::string& what) {
        check(::posix_spawnattr_init(&attributes_), what);
        int error = ::posix_spawn_file_actions_init(&actions_);
        if (error == 0) return;
        ::posix_spawnattr_destroy(&attributes_);
        check(error, what);
    }
    ~Preparation() {
        ::posix_spawn_file_actions_destroy(&actions_);
        ::posix_spawnattr_destroy(&attributes_);
    }
    Preparation(const Preparation&) = delete;
    Preparation& operator=(const Preparation&) = delete;

    void configure(const Program& program, const std::string& what) {
        sigset_t none, all;
        ::sigemptyset(&none);
        ::sigfillset(&all);
        check(::posix_spawnattr_setsigmask(&attributes_, &none), what);
        // Node ignores SIGPIPE, and what is ignored stays so after execve.
        check(::posix_spawnattr_setsigdefault(&attributes_, &all), what);
        check(::posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK |
                                                           POSIX_SPAWN_SETSIGDEF),
              what);
        const int fds[] = {program.input, program.output, program.error};
        for (int slot = 0; slot < 3; slot++) {
            check(::posix_spawn_file_actions_adddup2(&actions_, fds[slot], slot), what);
        }
        // What this process was started with need not be close-on-exec.
        check(::posix_spawn_file_actions_addclosefrom_np(&actions_, 3), what);
        check(::posix_spawn_file_actions_addchdir_np(&actions_, "/"), what);
    }

    const posix_spawnattr_t* attributes() const { return &attributes_; }
    const posix_spawn_file_actions_t* actions() const { return &actions_; }

  private:
    posix_spawnattr_t attributes_;
    posix_spawn_file_actions_t actions_;
};

} // namespace

Started start(const Program& program, int netns) {
    const std::string what = "start " + program.argv.front();
    const std::string file = fileOf(program);
    Preparation preparation(what);
    preparation.configure(program, what);
    std::vector<char*> argv = pointers(program.argv);
    std::vector<char*> environment = pointers(program.environment);
    pid_t pid = -1;
    {
        // The child is in the netns of the thread that starts it.
        NetnsScope scope(netns);
        int error = ::posix_spawn(&pid, file.c_str(), preparation.actions(),
                                  preparation.attributes(), argv.data(), environment.data());
        if (error != 0) fail(error, "execve", what);
    }
    Started started(pid);
    started.openPidfd(what);
    return started;
}

Started::~Started() {
    if (pid_ < 0) return;
    kill();
    pollfd end = {pidfd_.get(), POLLIN, 0};
    ::poll(&end, 1, kLastWait);
    reap();
}

void Started::openPidfd(const std::string& what) {
    // Nobody but us waits for this pid (libuv asks for its own ones by name), so it is still the
    // same.
    pidfd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
    if (!pidfd_) fail(errno, "pidfd_open", what);
}

void Started::kill() const {
    ::kill(-pid_, SIGKILL);
}

int Started::reap() {
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) != pid_) return -1;
    pid_ = -1;
    pidfd_.reset();
    return status;
}

UniqueFd memoryFile(const void* data, size_t size) {
    const char* what = "keep the input of a program";
    UniqueFd fd(::memfd_create("stdin", MFD_CLOEXEC | MFD_NOEXEC_SEAL));
    // Before 6.3 the flag is unknown; since then vm.memfd_noexec may demand it.
    if (!fd && errno == EINVAL) fd.reset(::memfd_create("stdin", MFD_CLOEXEC));
    if (!fd) fail(errno, "memfd_create", what);
    const char* bytes = static_cast<const char*>(data);
    for (size_t done = 0; done < size;) {
        ssize_t written = ::pwrite(fd.get(), bytes + done, size - done, static_cast<off_t>(done));
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) fail(written < 0 ? errno : EIO, "write", what);
        done += static_cast<size_t>(written);
    }
    return fd;
}

} // namespace ambient
