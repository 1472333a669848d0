// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "../bpf/abi.h"

namespace ambient {

/** One compiled object of bpf/, embedded in the addon. */
struct BpfObject {
    std::string name;
    const void* data;
    size_t size;
};

const std::vector<BpfObject>& bpfObjects();

/** Equal programs and equal knobs have equal generations: 16 hex digits. */
std::string bpfGeneration(const ambient_knobs& knobs);

} // namespace ambient
