// SPDX-License-Identifier: Apache-2.0
#include "bpf_objects.h"

#include <cstdint>
#include <cstdio>

// AMBIENT_BPF_DIR is where CMake put the objects.
#define EMBED(name)                                                                                \
    asm(".pushsection .rodata\n.balign 8\n.global ambient_object_" #name "\nambient_object_" #name \
        ":\n.incbin \"" AMBIENT_BPF_DIR "/" #name ".bpf.o\"\n.global ambient_object_end_" #name    \
        "\nambient_object_end_" #name ":\n.byte 0\n.popsection\n");                                \
    extern "C" const char ambient_object_##name[];                                                 \
    extern "C" const char ambient_object_end_##name[];

EMBED(connect)
EMBED(dns)
EMBED(ztunnel)
EMBED(arrive)
EMBED(leave)
EMBED(steer)
EMBED(listeners)
EMBED(probe)

#define OBJECT(name)                                                                               \
    BpfObject {                                                                                    \
#name, ambient_object_##name,                                                              \
            static_cast < size_t>(ambient_object_end_##name - ambient_object_##name)               \
    }

namespace ambient {

const std::vector<BpfObject>& bpfObjects() {
    static const std::vector<BpfObject> objects = {
        OBJECT(connect), OBJECT(dns),   OBJECT(ztunnel),   OBJECT(arrive),
        OBJECT(leave),   OBJECT(steer), OBJECT(listeners), OBJECT(probe)};
    return objects;
}

namespace {

/** FNV-1a: tells versions apart, and guards against nothing. */
void mix(uint64_t& hash, const void* data, size_t size) {
    const auto* bytes = static_cast<const uint8_t*>(data);
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3;
}

} // namespace

std::string bpfGeneration(const ambient_knobs& knobs) {
    uint64_t hash = 0xcbf29ce484222325;
    mix(hash, &knobs, sizeof(knobs));
    for (const BpfObject& object : bpfObjects())
        mix(hash, object.data, object.size);
    char text[17];
    std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(hash));
    return text;
}

} // namespace ambient
