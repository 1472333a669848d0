// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "unique_fd.h"

namespace ambient {

/** What a link is attached to now. */
struct LinkState {
    uint32_t program = 0;
    /** cgroup id or netns inode; 0 once that is gone. */
    uint64_t target = 0;
};

/** Attachment point of one of our programs, by its name. @throws Fault EINVAL. */
int attachType(const std::string& program);

/** undefined when nothing is pinned at `path`. */
std::optional<LinkState> linkState(const std::string& path);

/**
 * Makes sure that a link pinned at `name` below `base` attaches the program to the target: as it
 * is, updated in place (no moment without a program), or made anew. Directories below `base` are
 * made.
 */
void ensureLink(const std::string& base, const std::string& name, int program, int type, int target,
                uint64_t targetId);

/** A link that ends with the returned fd. */
UniqueFd makeLink(int program, int type, int target);

/**
 * Runs an iterator to its end, in the netns: over its sockets, or over the elements of a map. The
 * program may have seen enough before (not 0 with -EAGAIN as what is read).
 */
void iterate(int program, int netns, std::optional<int> map = std::nullopt);

} // namespace ambient
