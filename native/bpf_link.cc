// SPDX-License-Identifier: Apache-2.0
#include "bpf_link.h"

#include <bpf/bpf.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <map>

#include "bpf_node.h"
#include "fault.h"
#include "netns_scope.h"

namespace ambient {

int attachType(const std::string& program) {
    static const std::map<std::string, int> types = {
        {"ambient_connect4", BPF_CGROUP_INET4_CONNECT},
        {"ambient_connect6", BPF_CGROUP_INET6_CONNECT},
        {"ambient_sendmsg4", BPF_CGROUP_UDP4_SENDMSG},
        {"ambient_sendmsg6", BPF_CGROUP_UDP6_SENDMSG},
        {"ambient_recvmsg4", BPF_CGROUP_UDP4_RECVMSG},
        {"ambient_recvmsg6", BPF_CGROUP_UDP6_RECVMSG},
        {"ambient_getpeername4", BPF_CGROUP_INET4_GETPEERNAME},
        {"ambient_getpeername6", BPF_CGROUP_INET6_GETPEERNAME},
        {"ambient_sockops", BPF_CGROUP_SOCK_OPS},
        {"ambient_getsockopt", BPF_CGROUP_GETSOCKOPT},
        {"ambient_listen0", BPF_CGROUP_SOCK_OPS},
        {"ambient_listen1", BPF_CGROUP_SOCK_OPS},
        {"ambient_kubelet", BPF_CGROUP_SOCK_OPS},
        {"ambient_host", BPF_CGROUP_SOCK_OPS},
        {"ambient_lookup", BPF_SK_LOOKUP},
    };
    auto found = types.find(program);
    if (found == types.end()) fail(EINVAL, "bpf", "attach " + program, "it is attached by no link");
    return found->second;
}

namespace {

LinkState stateOf(int fd, const std::string& path) {
    bpf_link_info info = {};
    __u32 size = sizeof(info);
    if (bpf_obj_get_info_by_fd(fd, &info, &size) != 0)
        fail(errno, "bpf", "look at BPF link " + path);
    LinkState state;
    state.program = info.prog_id;
    if (info.type == BPF_LINK_TYPE_CGROUP) state.target = info.cgroup.cgroup_id;
    if (info.type == BPF_LINK_TYPE_NETNS) state.target = info.netns.netns_ino;
    return state;
}

/** Empty when there is none. */
UniqueFd openLink(const std::string& path) {
    const int fd = bpf_obj_get(path.c_str());
    if (fd < 0 && errno != ENOENT) fail(errno, "bpf", "open BPF link " + path);
    return UniqueFd(fd < 0 ? -1 : fd);
}

void makeParents(const std::string& base, const std::string& name) {
    for (size_t at = name.find('/'); at != std::string::npos; at = name.find('/', at + 1)) {
        const std::string parent = base + "/" + name.substr(0, at);
        if (::mkdir(parent.c_str(), 0700) != 0 && errno != EEXIST)
            fail(errno, "mkdir", "make " + parent);
    }
}

} // namespace

std::optional<LinkState> linkState(const std::string& path) {
    UniqueFd link = openLink(path);
    if (!link) return std::nullopt;
    return stateOf(link.get(), path);
}

UniqueFd makeLink(int program, int type, int target) {
    const int fd = bpf_link_create(program, target, static_cast<bpf_attach_type>(type), nullptr);
    if (fd < 0) fail(errno, "bpf", "attach a BPF program");
    return UniqueFd(fd);
}

void iterate(int program, int netns, std::optional<int> map) {
    bpf_iter_link_info over = {};
    LIBBPF_OPTS(bpf_link_create_opts, options);
    if (map) {
        over.map.map_fd = static_cast<__u32>(*map);
        options.iter_info = &over;
        options.iter_info_len = sizeof(over);
    }
    UniqueFd link(bpf_link_create(program, 0, BPF_TRACE_ITER, &options));
    if (!link) fail(errno, "bpf", "attach a BPF iterator");
    NetnsScope scope(netns);
    UniqueFd iterator(bpf_iter_create(link.get()));
    if (!iterator) fail(errno, "bpf", "make a BPF iterator");
    char nothing[64];
    for (;;) {
        const ssize_t size = ::read(iterator.get(), nothing, sizeof(nothing));
        if (size > 0 || (size < 0 && errno == EINTR)) continue;
        if (size == 0 || errno == EAGAIN) return;
        fail(errno, "read", "run a BPF iterator");
    }
}

void ensureLink(const std::string& base, const std::string& name, int program, int type, int target,
                uint64_t targetId) {
    const std::string path = base + "/" + name;
    if (UniqueFd link = openLink(path)) {
        const LinkState state = stateOf(link.get(), path);
        if (state.target == targetId) {
            if (state.program == programId(program)) return;
            if (bpf_link_update(link.get(), program, nullptr) == 0) return;
            fail(errno, "bpf", "replace the program of BPF link " + path);
        }
        if (::unlink(path.c_str()) != 0 && errno != ENOENT) fail(errno, "unlink", "remove " + path);
    }
    makeParents(base, name);
    UniqueFd link = makeLink(program, type, target);
    if (bpf_obj_pin(link.get(), path.c_str()) != 0) fail(errno, "bpf", "pin BPF link " + path);
}

} // namespace ambient
