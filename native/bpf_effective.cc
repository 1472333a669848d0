// SPDX-License-Identifier: Apache-2.0
// Which programs, whoever attached them and where, the kernel runs for a cgroup.
#include "bpf_effective.h"

#include <bpf/bpf.h>
#include <fcntl.h>

#include <cerrno>
#include <vector>

#include "args.h"
#include "bpf_link.h"
#include "fault.h"
#include "unique_fd.h"

namespace ambient {

namespace {

/** BPF_CGROUP_MAX_PROGS is 64 for each cgroup of a path; more are not looked at. */
constexpr uint32_t kMaxPrograms = 256;

/** Empty for a program that is gone, or that has no name. */
std::string programName(uint32_t id) {
    UniqueFd program(bpf_prog_get_fd_by_id(id));
    if (!program) return "";
    bpf_prog_info info = {};
    __u32 size = sizeof(info);
    if (bpf_obj_get_info_by_fd(program.get(), &info, &size) != 0) return "";
    return info.name;
}

} // namespace

/**
 * In the order in which they run: those of the cgroup itself, then those of its parent, and so on
 * (compute_effective_progs; since 6.15 BPF_F_PREORDER puts others first, and the kernel lists them
 * so).
 */
Napi::Value bpfCgroupPrograms(const Napi::CallbackInfo& info) {
    Args args(info);
    const std::string path = args.string(0, "cgroup");
    UniqueFd cgroup(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!cgroup) fail(errno, "open", "open cgroup " + path);
    std::vector<uint32_t> ids(kMaxPrograms);
    LIBBPF_OPTS(bpf_prog_query_opts, options);
    options.query_flags = BPF_F_QUERY_EFFECTIVE;
    options.prog_ids = ids.data();
    options.prog_cnt = kMaxPrograms;
    const auto type = static_cast<bpf_attach_type>(attachType(args.string(1, "program")));
    if (bpf_prog_query_opts(cgroup.get(), type, &options) != 0 && errno != ENOSPC)
        fail(errno, "bpf", "list the programs that run for cgroup " + path);
    Napi::Array result = Napi::Array::New(info.Env());
    for (uint32_t i = 0; i < options.prog_cnt && i < kMaxPrograms; i++) {
        Napi::Object program = Napi::Object::New(info.Env());
        program.Set("id", ids[i]);
        program.Set("name", programName(ids[i]));
        result.Set(i, program);
    }
    return result;
}

} // namespace ambient
