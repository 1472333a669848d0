// SPDX-License-Identifier: Apache-2.0
// What is true of the node as a whole, and listeners that were open before the hooks.
#include "bpf_state.h"

#include <algorithm>

#include "bpf_link.h"
#include "bpf_table.h"
#include "bpf_values.h"
#include "netns_scope.h"

namespace ambient {

namespace {

/** Which cgroups' listeners the iterator takes, until the end of the scope. */
class Adoptable {
  public:
    Adoptable(const BpfNode& node, const std::vector<uint64_t>& cgroups)
        : map_(node.map("adoptable")), cgroups_(cgroups) {
        const uint32_t one = 1;
        for (const uint64_t cgroup : cgroups_) {
            if (update(map_, &cgroup, &one, BPF_ANY) == 0) continue;
            const int error = errno;
            clear();
            fail(error, "bpf", "write to BPF map adoptable");
        }
    }
    Adoptable(const Adoptable&) = delete;
    Adoptable& operator=(const Adoptable&) = delete;
    ~Adoptable() { clear(); }

  private:
    void clear() {
        for (const uint64_t cgroup : cgroups_)
            bpf_map_delete_elem(map_, &cgroup);
    }

    int map_;
    const std::vector<uint64_t>& cgroups_;
};

ambient_state stateOf(const BpfNode& node) {
    ambient_state state = {};
    get(node, "state", uint32_t{0}, state);
    return state;
}

} // namespace

void adopt(const BpfNode& node, int netns, const std::vector<uint64_t>& cgroups) {
    const Adoptable adoptable(node, cgroups);
    iterate(node.program("ambient_note"), netns);
    iterate(node.program("ambient_adopt"), kOwnNetns, node.map("noted"));
}

Napi::Object readState(Napi::Env env, const BpfNode& node) {
    const ambient_state state = stateOf(node);
    Napi::Object object = Napi::Object::New(env);
    object.Set("newestSlot", state.newest_slot);
    return object;
}

void writeState(const BpfNode& node, const Fields& fields) {
    ambient_state state = stateOf(node);
    if (fields.has("hostCookie")) {
        state.host_cookie = uint64Of(fields.raw().Get("hostCookie"), "hostCookie");
    }
    if (auto slot = fields.optionalNumber("newestSlot", 1)) state.newest_slot = *slot;
    if (auto known = fields.optionalNumber("ztunnelByCgroup", 1)) state.ztunnel_by_cgroup = *known;
    if (auto probers = fields.optionalNumber("probers", 2)) state.probers = *probers;
    put(node, "state", uint32_t{0}, state);
}

void writeZtunnels(const BpfNode& node, const Napi::CallbackInfo& info) {
    const std::vector<uint64_t> wanted = idsAt(info, 0, "cgroups");
    for (const uint64_t id : wanted)
        put(node, "ztunnels", id, uint32_t{1});
    for (const uint64_t id : keys<uint64_t>(node, "ztunnels")) {
        if (std::find(wanted.begin(), wanted.end(), id) == wanted.end())
            erase(node, "ztunnels", id);
    }
}

} // namespace ambient
