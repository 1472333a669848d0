// SPDX-License-Identifier: Apache-2.0
// What is true of the node as a whole, and listeners that were open before the hooks.
#include "bpf_state.h"

#include <bpf/bpf.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "bpf_link.h"
#include "bpf_maps.h"
#include "bpf_values.h"
#include "fault.h"
#include "netns_scope.h"

namespace ambient {

/** Reads the iterator to its end in the netns; -EAGAIN is how the program says that it has seen
 * enough. */
void adopt(const BpfNode& node, int netns, const std::vector<uint64_t>& cgroups) {
    const uint32_t one = 1;
    for (uint64_t cgroup : cgroups) {
        if (bpf_map_update_elem(node.map("adoptable"), &cgroup, &one, BPF_ANY) != 0) {
            fail(errno, "bpf", "write to BPF map adoptable");
        }
    }
    UniqueFd link = makeLink(node.program("ambient_adopt"), BPF_TRACE_ITER, 0);
    {
        NetnsScope scope(netns);
        UniqueFd iterator(bpf_iter_create(link.get()));
        if (!iterator) fail(errno, "bpf", "iterate over the sockets of a netns");
        char nothing[64];
        for (;;) {
            const ssize_t size = ::read(iterator.get(), nothing, sizeof(nothing));
            if (size > 0 || (size < 0 && errno == EINTR)) continue;
            if (size == 0 || errno == EAGAIN) break;
            fail(errno, "read", "iterate over the sockets of a netns");
        }
    }
    for (uint64_t cgroup : cgroups)
        bpf_map_delete_elem(node.map("adoptable"), &cgroup);
}

void writeState(const BpfNode& node, const Fields& fields) {
    const uint32_t zero = 0;
    ambient_state state = {};
    if (bpf_map_lookup_elem(node.map("state"), &zero, &state) != 0)
        fail(errno, "bpf", "read BPF map state");
    if (fields.has("hostCookie")) {
        state.host_cookie = uint64Of(fields.raw().Get("hostCookie"), "hostCookie");
    }
    if (auto slot = fields.optionalNumber("newestSlot", 1)) state.newest_slot = *slot;
    if (auto known = fields.optionalNumber("ztunnelByCgroup", 1)) state.ztunnel_by_cgroup = *known;
    if (auto events = fields.optionalNumber("events", 1)) state.events = *events;
    if (auto probers = fields.optionalNumber("probers", 2)) state.probers = *probers;
    if (bpf_map_update_elem(node.map("state"), &zero, &state, BPF_ANY) != 0)
        fail(errno, "bpf", "write to BPF map state");
}

void writeZtunnels(const BpfNode& node, const Napi::CallbackInfo& info) {
    const std::vector<uint64_t> wanted = idsAt(info, 0, "cgroups");
    const uint32_t one = 1;
    for (const uint64_t id : wanted) {
        if (bpf_map_update_elem(node.map("ztunnels"), &id, &one, BPF_ANY) != 0) {
            fail(errno, "bpf", "write to BPF map ztunnels");
        }
    }
    for (const uint64_t id : ztunnelIds(node)) {
        if (std::find(wanted.begin(), wanted.end(), id) == wanted.end())
            bpf_map_delete_elem(node.map("ztunnels"), &id);
    }
}

} // namespace ambient
