// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "unique_fd.h"

namespace ambient {

/** What is to be started; nothing of it needs JavaScript. */
struct Program {
    std::vector<std::string> argv;
    /** "NAME=value"; its PATH is where a name without a slash is looked for. */
    std::vector<std::string> environment;
    /** Fds that become 0, 1 and 2. */
    int input, output, error;
};

/** A started program. Until it is reaped its pid and process group can't be anybody else's. */
class Started {
  public:
    explicit Started(pid_t pid) : pid_(pid) {}
    Started(Started&& other) noexcept
        : pid_(std::exchange(other.pid_, -1)), pidfd_(std::move(other.pidfd_)) {}
    Started& operator=(Started&&) = delete;
    /** One that was not reaped is killed: nobody is left to hold it to anything. */
    ~Started();

    /** @throws Fault. */
    void openPidfd(const std::string& what);
    /** Readable when the program has ended. */
    int pidfd() const { return pidfd_.get(); }
    /** SIGKILL to the program and to everything it started that did not leave its session. */
    void kill() const;
    /**
     * Takes the status of a program that has ended, as waitpid(2) has it, and closes the pidfd.
     * -1: it has not ended.
     */
    int reap();

  private:
    pid_t pid_;
    UniqueFd pidfd_;
};

/**
 * Starts a program in a netns, in a session of its own, in "/", with no fd but 0, 1 and 2, no
 * blocked and no ignored signal. posix_spawn has the semantics of vfork: no page table of this
 * process is copied.
 * @throws Fault of setns, or of execve that names the program.
 */
Started start(const Program& program, int netns);

/** A file in memory that holds `size` bytes, to be read from its beginning. */
UniqueFd memoryFile(const void* data, size_t size);

} // namespace ambient
