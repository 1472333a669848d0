// SPDX-License-Identifier: Apache-2.0
// What is pinned on the node, for who only looks: maps are opened for reading, nothing is loaded or
// made.
#include "bpf_pinned.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <cerrno>
#include <vector>

#include "args.h"
#include "bpf_events.h"
#include "bpf_values.h"
#include "fault.h"
#include "unique_fd.h"

namespace ambient {

namespace {

/** @throws Fault; EINVAL for a map of another layout. */
UniqueFd openMap(const std::string& path, __u32 valueSize) {
    LIBBPF_OPTS(bpf_obj_get_opts, options);
    options.file_flags = BPF_F_RDONLY;
    UniqueFd map(bpf_obj_get_opts(path.c_str(), &options));
    if (!map) return map;
    bpf_map_info info = {};
    __u32 size = sizeof(info);
    if (bpf_obj_get_info_by_fd(map.get(), &info, &size) != 0)
        fail(errno, "bpf", "look at BPF map " + path);
    if (info.key_size != sizeof(uint64_t) || info.value_size != valueSize)
        fail(EINVAL, "bpf", "read BPF map " + path, "it has another layout");
    return map;
}

Napi::Object counterObject(Napi::Env env, int map, uint64_t cookie) {
    Napi::Object object = Napi::Object::New(env);
    std::vector<ambient_counters> each(static_cast<size_t>(libbpf_num_possible_cpus()));
    if (bpf_map_lookup_elem(map, &cookie, each.data()) != 0) return object;
    for (unsigned i = 0; i < AMBIENT_VERDICTS; i++) {
        uint64_t sum = 0;
        for (const ambient_counters& cpu : each)
            sum += cpu.verdict[i];
        object.Set(verdictName(i), static_cast<double>(sum));
    }
    return object;
}

} // namespace

/** Pods in the maps below a directory; none when it does not exist. */
Napi::Value bpfPinned(const Napi::CallbackInfo& info) {
    const std::string dir = Args(info).string(0, "dir");
    Napi::Env env = info.Env();
    Napi::Array result = Napi::Array::New(env);
    UniqueFd pods = openMap(dir + "/maps/pods", sizeof(ambient_pod));
    if (!pods && errno == ENOENT) return result;
    if (!pods) fail(errno, "bpf", "open BPF map " + dir + "/maps/pods");
    UniqueFd counters = openMap(dir + "/maps/counters", sizeof(ambient_counters));
    uint64_t cookie = 0;
    uint64_t* before = nullptr;
    uint32_t count = 0;
    while (bpf_map_get_next_key(pods.get(), before, &cookie) == 0) {
        before = &cookie;
        ambient_pod pod = {};
        // Gone between the two calls.
        if (bpf_map_lookup_elem(pods.get(), &cookie, &pod) != 0) continue;
        Napi::Object object = toObject(env, pod);
        object.Set("cookie", Napi::BigInt::New(env, cookie));
        object.Set("counters", counterObject(env, counters.get(), cookie));
        result.Set(count++, object);
    }
    return result;
}

/** libbpf, and the programs that this addon holds. */
Napi::Value bpfVersions(const Napi::CallbackInfo& info) {
    Napi::Object object = Napi::Object::New(info.Env());
    object.Set("libbpf", libbpf_version_string());
    object.Set("schema", AMBIENT_SCHEMA);
    object.Set("generation", bpfGeneration(knobsOf(Args(info).object(0, "knobs"))));
    return object;
}

} // namespace ambient
