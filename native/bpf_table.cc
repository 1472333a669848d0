// SPDX-License-Identifier: Apache-2.0
#include "bpf_table.h"

#include <unistd.h>

namespace ambient {

namespace {

constexpr int MEMORY_TRIES = 20;
constexpr useconds_t MEMORY_WAIT = 200;

} // namespace

int update(int map, const void* key, const void* value, uint64_t flags) {
    for (int tries = 1;; tries++) {
        const int result = bpf_map_update_elem(map, key, value, flags);
        if (result == 0 || errno != ENOMEM || tries == MEMORY_TRIES) return result;
        usleep(MEMORY_WAIT);
    }
}

} // namespace ambient
