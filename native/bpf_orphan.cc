// SPDX-License-Identifier: Apache-2.0
// What the kernel says of our programs in a netns without any pin: for an agent that can't reach
// them.
#include "bpf_orphan.h"

#include <bpf/bpf.h>
#include <sys/stat.h>

#include <cerrno>

#include "args.h"
#include "fault.h"
#include "tc.h"
#include "unique_fd.h"

namespace ambient {

/** True when a link attaches an sk_lookup program to the netns. */
Napi::Value bpfNetnsLinked(const Napi::CallbackInfo& info) {
    struct stat netns;
    if (::fstat(Args(info).fd(0, "netns"), &netns) != 0) fail(errno, "fstat", "identify a netns");
    __u32 id = 0;
    while (bpf_link_get_next_id(id, &id) == 0) {
        UniqueFd link(bpf_link_get_fd_by_id(id));
        bpf_link_info found = {};
        __u32 size = sizeof(found);
        // Gone between the two calls.
        if (!link || bpf_obj_get_info_by_fd(link.get(), &found, &size) != 0) continue;
        if (found.type != BPF_LINK_TYPE_NETNS || found.netns.attach_type != BPF_SK_LOOKUP) continue;
        if (found.netns.netns_ino == netns.st_ino) return Napi::Boolean::New(info.Env(), true);
    }
    if (errno != ENOENT) fail(errno, "bpf", "list BPF links");
    return Napi::Boolean::New(info.Env(), false);
}

Napi::Value bpfFilterState(const Napi::CallbackInfo& info) {
    Args args(info);
    const TcState state = tcState(args.fd(0, "netns"), args.number(1, "ifindex"));
    Napi::Object result = Napi::Object::New(info.Env());
    result.Set("ingress", state.ingress);
    result.Set("egress", state.egress);
    return result;
}

Napi::Value bpfFilterDetach(const Napi::CallbackInfo& info) {
    Args args(info);
    tcDetach(args.fd(0, "netns"), args.number(1, "ifindex"));
    return info.Env().Undefined();
}

} // namespace ambient
