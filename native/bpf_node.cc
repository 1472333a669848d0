// SPDX-License-Identifier: Apache-2.0
#include "bpf_node.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "fault.h"

namespace ambient {

namespace {

void makeDirectory(const std::string& path) {
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) fail(errno, "mkdir", "make " + path);
}

struct CloseDirectory {
    void operator()(DIR* dir) const { ::closedir(dir); }
};

bool exists(const std::string& path) {
    struct stat status;
    return ::lstat(path.c_str(), &status) == 0;
}

/** Before anything is made: another file system is left as it is. */
void requireBpffs(const std::string& dir) {
    std::string there = dir;
    while (!exists(there) && there.rfind('/') > 0)
        there.resize(there.rfind('/'));
    struct statfs status;
    if (::statfs(there.c_str(), &status) != 0) fail(errno, "statfs", "look at " + there);
    if (static_cast<uint32_t>(status.f_type) != BPF_FS_MAGIC) {
        fail(ENODEV, "statfs", "pin BPF objects in " + dir, "it is not on a bpffs");
    }
}

void makeDirectories(const std::string& dir) {
    requireBpffs(dir);
    makeDirectory(dir.substr(0, dir.rfind('/')));
    makeDirectory(dir);
    makeDirectory(dir + "/maps");
    makeDirectory(dir + "/programs");
}

} // namespace

std::vector<std::string> directoryEntries(const std::string& path) {
    std::unique_ptr<DIR, CloseDirectory> dir(::opendir(path.c_str()));
    if (dir == nullptr) {
        if (errno == ENOENT) return {};
        fail(errno, "opendir", "list " + path);
    }
    std::vector<std::string> names;
    while (const dirent* entry = ::readdir(dir.get())) {
        const std::string name = entry->d_name;
        if (name != "." && name != "..") names.push_back(name);
    }
    return names;
}

void removeTree(const std::string& path) {
    for (const std::string& name : directoryEntries(path)) {
        const std::string child = path + "/" + name;
        struct stat status;
        if (::lstat(child.c_str(), &status) != 0) continue;
        if (S_ISDIR(status.st_mode)) {
            removeTree(child);
        } else if (::unlink(child.c_str()) != 0 && errno != ENOENT) {
            fail(errno, "unlink", "remove " + child);
        }
    }
    if (::rmdir(path.c_str()) != 0 && errno != ENOENT) fail(errno, "rmdir", "remove " + path);
}

uint32_t programId(int fd) {
    bpf_prog_info info = {};
    __u32 size = sizeof(info);
    if (bpf_obj_get_info_by_fd(fd, &info, &size) != 0) fail(errno, "bpf", "identify a BPF program");
    return info.id;
}

BpfNode BpfNode::open(const std::string& dir, const ambient_knobs& knobs) {
    quietLibbpf();
    makeDirectories(dir);
    BpfNode node;
    node.dir_ = dir;
    node.generation_ = bpfGeneration(knobs);
    const std::string home = dir + "/programs/" + node.generation_;
    if (exists(home)) {
        node.reopen(home);
    } else {
        node.loadAndPin(home, knobs);
    }
    node.openMaps();
    return node;
}

void BpfNode::keepPinned() const {
    const std::string home = dir_ + "/programs/" + generation_;
    const auto unpinned = [this](const auto& map) { return !exists(dir_ + "/maps/" + map.first); };
    if (exists(home) && std::none_of(maps_.begin(), maps_.end(), unpinned)) return;
    makeDirectories(dir_);
    for (const auto& [name, fd] : maps_) {
        const std::string path = dir_ + "/maps/" + name;
        if (!exists(path) && bpf_obj_pin(fd.get(), path.c_str()) != 0)
            fail(errno, "bpf", "pin BPF map " + name);
    }
    if (!exists(home)) pinPrograms(home);
}

void BpfNode::loadAndPin(const std::string& home, const ambient_knobs& knobs) {
    for (const BpfObject& object : bpfObjects()) {
        LoadedPrograms loaded = loadObject(object, knobs, dir_ + "/maps");
        loaded_.programs.merge(loaded.programs);
        loaded_.refused.merge(loaded.refused);
    }
    pinPrograms(home);
}

void BpfNode::pinPrograms(const std::string& home) const {
    // What somebody left who died. Names with dots are reserved on a bpffs.
    const std::string draft = home + "-new";
    removeTree(draft);
    makeDirectory(draft);
    for (const auto& [name, fd] : loaded_.programs) {
        if (bpf_obj_pin(fd.get(), (draft + "/" + name).c_str()) != 0)
            fail(errno, "bpf", "pin BPF program " + name);
    }
    // A bpffs keeps objects, directories and symbolic links: the reason is where a link would lead.
    for (const auto& [name, reason] : loaded_.refused) {
        if (::symlink(reason.substr(0, 1000).c_str(), (draft + "/" + name).c_str()) != 0) {
            fail(errno, "symlink", "note that BPF program " + name + " was refused");
        }
    }
    if (::rename(draft.c_str(), home.c_str()) != 0) fail(errno, "rename", "publish " + home);
}

void BpfNode::reopen(const std::string& home) {
    for (const std::string& name : directoryEntries(home)) {
        const std::string path = home + "/" + name;
        char reason[1024];
        const ssize_t size = ::readlink(path.c_str(), reason, sizeof(reason));
        if (size >= 0) {
            loaded_.refused.emplace(name, std::string(reason, static_cast<size_t>(size)));
            continue;
        }
        const int fd = bpf_obj_get(path.c_str());
        if (fd < 0) fail(errno, "bpf", "open BPF program " + path);
        loaded_.programs.emplace(name, UniqueFd(fd));
    }
}

void BpfNode::openMaps() {
    for (const std::string& name : directoryEntries(dir_ + "/maps")) {
        const int fd = bpf_obj_get((dir_ + "/maps/" + name).c_str());
        if (fd < 0) fail(errno, "bpf", "open BPF map " + name);
        maps_.emplace(name, UniqueFd(fd));
    }
}

int BpfNode::program(const std::string& name) const {
    if (auto found = loaded_.programs.find(name); found != loaded_.programs.end())
        return found->second.get();
    auto refused = loaded_.refused.find(name);
    fail(ENOENT, "bpf", "use BPF program " + name,
         refused == loaded_.refused.end() ? "there is none of this name"
                                          : "this kernel refused it: " + refused->second);
}

int BpfNode::map(const std::string& name) const {
    if (auto found = maps_.find(name); found != maps_.end()) return found->second.get();
    fail(ENOENT, "bpf", "use BPF map " + name);
}

} // namespace ambient
