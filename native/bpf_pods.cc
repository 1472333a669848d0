// SPDX-License-Identifier: Apache-2.0
#include "bpf_pods.h"

#include <bpf/libbpf.h>

#include <cstring>

#include "bpf_address.h"
#include "bpf_table.h"

namespace ambient {

namespace {

bool isSame(const ambient_address& a, const ambient_address& b) {
    return std::memcmp(&a, &b, sizeof(a)) == 0;
}

struct Owned {
    const ambient_address* address;
    uint32_t role;
};

std::vector<Owned> owned(const ambient_pod& pod) {
    std::vector<Owned> all;
    for (const Owned& one :
         {Owned{&pod.ip4, AMBIENT_ROLE_POD}, Owned{&pod.ip6, AMBIENT_ROLE_POD},
          Owned{&pod.shadow4, AMBIENT_ROLE_SHADOW}, Owned{&pod.shadow6, AMBIENT_ROLE_SHADOW}}) {
        if (!isZero(*one.address)) all.push_back(one);
    }
    return all;
}

/** What pod_addresses should say about each address of the pod. */
std::vector<std::pair<ambient_pod_address_key, uint32_t>> podAddresses(uint64_t cookie,
                                                                       const BpfPod& pod) {
    std::vector<std::pair<ambient_pod_address_key, uint32_t>> all;
    const auto add = [&](const ambient_address& address, uint32_t flag) {
        for (auto& [key, flags] : all) {
            if (!isSame(key.address, address)) continue;
            flags |= flag;
            return;
        }
        all.push_back({{cookie, address}, flag});
    };
    for (const ambient_address& local : pod.locals)
        add(local, AMBIENT_ADDRESS_LOCAL);
    for (const ambient_address& nameserver : pod.nameservers)
        add(nameserver, AMBIENT_ADDRESS_NAMESERVER);
    return all;
}

bool isOf(const ambient_exclude_key& key, uint64_t cookie) {
    return key.cookie[0] == static_cast<uint32_t>(cookie) &&
           key.cookie[1] == static_cast<uint32_t>(cookie >> 32);
}

/** Rows that lead to the pod, but for addresses in `keep`. */
void eraseOwned(const BpfNode& node, uint64_t cookie, const ambient_pod& pod,
                const ambient_pod* keep) {
    for (const Owned& one : owned(pod)) {
        bool kept = false;
        if (keep != nullptr)
            for (const Owned& other : owned(*keep))
                kept = kept || isSame(*one.address, *other.address);
        ambient_owner owner = {};
        // The address may be another pod's by now.
        if (kept || !get(node, "addresses", *one.address, owner) || owner.cookie != cookie)
            continue;
        erase(node, "addresses", *one.address);
    }
}

/** Entries of lists that belong to the pod and are not in `keep`. */
void eraseLists(const BpfNode& node, uint64_t cookie, const BpfPod* keep) {
    const auto wanted = keep == nullptr ? podAddresses(cookie, {}) : podAddresses(cookie, *keep);
    for (const auto& key : keys<ambient_pod_address_key>(node, "pod_addresses")) {
        bool kept = key.cookie != cookie;
        for (const auto& [other, flags] : wanted)
            kept = kept || isSame(other.address, key.address);
        if (!kept) erase(node, "pod_addresses", key);
    }
    for (const auto& key : keys<ambient_exclude_key>(node, "excludes")) {
        bool kept = !isOf(key, cookie);
        if (keep != nullptr)
            for (const auto& other : keep->excludes)
                kept = kept || std::memcmp(&other, &key, sizeof(key)) == 0;
        if (!kept) erase(node, "excludes", key);
    }
}

/** Whoever finds it knows that its lists may hold more than it says: its plan is nobody's. */
ambient_pod unfinished(ambient_pod pod) {
    std::memset(pod.plan, 0, sizeof(pod.plan));
    return pod;
}

} // namespace

void writePod(const BpfNode& node, uint64_t cookie, const BpfPod& pod) {
    const std::optional<ambient_pod> before = readPod(node, cookie);
    const uint32_t one = 1;
    if (before) put(node, "pods", cookie, unfinished(*before));
    for (const auto& [key, flags] : podAddresses(cookie, pod))
        put(node, "pod_addresses", key, flags);
    for (const auto& key : pod.excludes)
        put(node, "excludes", key, one);
    for (const Owned& address : owned(pod.pod)) {
        ambient_owner owner = {};
        // Only a pod that is new takes an address over: the other one is on its way out.
        const bool lost = before && get(node, "addresses", *address.address, owner) &&
                          owner.cookie != cookie && readPod(node, owner.cookie);
        if (!lost) put(node, "addresses", *address.address, ambient_owner{cookie, address.role, 0});
    }
    if (!before) {
        const std::vector<ambient_counters> none(static_cast<size_t>(libbpf_num_possible_cpus()));
        if (update(node.map("counters"), &cookie, none.data(), BPF_NOEXIST) != 0 &&
            errno != EEXIST) {
            fail(errno, "bpf", "write to BPF map counters");
        }
    }
    if (before) {
        put(node, "pods", cookie, unfinished(pod.pod));
        eraseOwned(node, cookie, *before, &pod.pod);
        eraseLists(node, cookie, &pod);
    }
    put(node, "pods", cookie, pod.pod);
}

void writePodFlags(const BpfNode& node, uint64_t cookie, uint32_t flags) {
    ambient_pod pod = {};
    if (!get(node, "pods", cookie, pod)) fail(ENOENT, "bpf", "change the flags of a pod");
    pod.flags = flags;
    put(node, "pods", cookie, pod, BPF_EXIST);
}

std::optional<ambient_pod> readPod(const BpfNode& node, uint64_t cookie) {
    ambient_pod pod = {};
    if (!get(node, "pods", cookie, pod)) return std::nullopt;
    return pod;
}

std::vector<std::string> podDifferences(const BpfNode& node, uint64_t cookie,
                                        const BpfPod& wanted) {
    std::vector<std::string> names;
    const std::optional<ambient_pod> found = readPod(node, cookie);
    if (!found) return {"entry"};
    if (std::memcmp(&*found, &wanted.pod, sizeof(ambient_pod)) != 0) names.push_back("settings");
    for (const Owned& one : owned(wanted.pod)) {
        ambient_owner owner = {};
        const bool there = get(node, "addresses", *one.address, owner);
        if (there && owner.cookie == cookie && owner.role == one.role) continue;
        // A younger pod has got the address while this netns still lives: it is not ours to take
        // back.
        if (there && owner.cookie != cookie && readPod(node, owner.cookie)) continue;
        names.push_back("address " + bpfAddressText(*one.address));
    }
    for (const auto& [key, flags] : podAddresses(cookie, wanted)) {
        uint32_t is = 0;
        if (get(node, "pod_addresses", key, is) && is == flags) continue;
        names.push_back("address " + bpfAddressText(key.address));
    }
    for (const auto& key : wanted.excludes) {
        uint32_t is = 0;
        // A lookup in a trie finds shorter prefixes too; of a deleted one only that much is
        // noticed.
        if (!get(node, "excludes", key, is))
            names.push_back("exclude " + bpfAddressText(key.address));
    }
    return names;
}

void deletePod(const BpfNode& node, uint64_t cookie) {
    const std::optional<ambient_pod> pod = readPod(node, cookie);
    if (pod) {
        erase(node, "pods", cookie);
        eraseOwned(node, cookie, *pod, nullptr);
    } else {
        // Whoever was killed halfway through writing or deleting it left only what leads to it.
        for (const ambient_address& address : keys<ambient_address>(node, "addresses")) {
            ambient_owner owner = {};
            if (get(node, "addresses", address, owner) && owner.cookie == cookie)
                erase(node, "addresses", address);
        }
    }
    eraseLists(node, cookie, nullptr);
    erase(node, "counters", cookie);
}

void eraseFrom(const std::string& path, uint64_t cookie) {
    UniqueFd map(bpf_obj_get(path.c_str()));
    if (!map && errno == ENOENT) return;
    if (!map) fail(errno, "bpf", "open BPF map " + path);
    // The kernel reads as many bytes as the key has.
    bpf_map_info info = {};
    __u32 size = sizeof(info);
    if (bpf_obj_get_info_by_fd(map.get(), &info, &size) != 0)
        fail(errno, "bpf", "look at BPF map " + path);
    if (info.key_size != sizeof(cookie))
        fail(EINVAL, "bpf", "delete from BPF map " + path, "its key is no netns cookie");
    if (bpf_map_delete_elem(map.get(), &cookie) == 0 || errno == ENOENT) return;
    fail(errno, "bpf", "delete from BPF map " + path);
}

std::vector<uint64_t> podCookies(const BpfNode& node) {
    return keys<uint64_t>(node, "pods");
}

ambient_counters readCounters(const BpfNode& node, uint64_t cookie) {
    ambient_counters sum = {};
    std::vector<ambient_counters> each(static_cast<size_t>(libbpf_num_possible_cpus()));
    if (bpf_map_lookup_elem(node.map("counters"), &cookie, each.data()) != 0) {
        if (errno == ENOENT) return sum;
        fail(errno, "bpf", "read BPF map counters");
    }
    for (const ambient_counters& cpu : each) {
        for (size_t i = 0; i < AMBIENT_VERDICTS; i++)
            sum.verdict[i] += cpu.verdict[i];
    }
    return sum;
}

bool hasListener(const BpfNode& node, uint64_t cookie, uint16_t port) {
    for (uint16_t slot = 0; slot < AMBIENT_SLOTS; slot++) {
        uint64_t socket = 0;
        if (get(node, "listeners", ambient_listener_key{cookie, port, slot, 0}, socket))
            return true;
    }
    return false;
}

} // namespace ambient
