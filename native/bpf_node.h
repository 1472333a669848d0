// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "bpf_loader.h"
#include "unique_fd.h"

namespace ambient {

/**
 * Programs and maps of one node below one directory of a bpffs:
 * maps/<name>, programs/<generation>/<name>, and links where callers put them.
 */
class BpfNode {
  public:
    /** Opens what is pinned and loads what is not. @throws Fault. */
    static BpfNode open(const std::string& dir, const ambient_knobs& knobs);

    const std::string& dir() const { return dir_; }
    const std::string& generation() const { return generation_; }
    const std::map<std::string, UniqueFd>& programs() const { return loaded_.programs; }
    const std::map<std::string, std::string>& refused() const { return loaded_.refused; }
    /** @throws Fault ENOENT with the kernel's reason. */
    int program(const std::string& name) const;
    /** @throws Fault ENOENT. */
    int map(const std::string& name) const;

    /**
     * Pins again what somebody has unpinned: without its maps the next agent would begin with empty
     * ones, below programs that go on with these. @throws Fault.
     */
    void keepPinned() const;

  private:
    BpfNode() = default;
    void loadAndPin(const std::string& home, const ambient_knobs& knobs);
    void pinPrograms(const std::string& home) const;
    void reopen(const std::string& home);
    void openMaps();

    std::string dir_;
    std::string generation_;
    LoadedPrograms loaded_;
    std::map<std::string, UniqueFd> maps_;
};

/** Kernel id of a program. */
uint32_t programId(int fd);

/** Names in a directory; none when it does not exist. */
std::vector<std::string> directoryEntries(const std::string& path);

/** Removes a directory of a bpffs with all pins in it. What is gone already is no error. */
void removeTree(const std::string& path);

} // namespace ambient
