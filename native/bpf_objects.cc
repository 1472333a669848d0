// SPDX-License-Identifier: Apache-2.0
#include "bpf_objects.h"

#include "digest.h"

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

std::string bpfGeneration(const ambient_knobs& knobs) {
    Digest digest;
    digest.add(&knobs, sizeof(knobs));
    for (const BpfObject& object : bpfObjects())
        digest.add(object.data, object.size);
    return digestText(digest.value());
}

} // namespace ambient
