// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

#include <cstdint>
#include <vector>

#include "args.h"
#include "bpf_node.h"

namespace ambient {

/** Enters open listeners of these cgroups in the netns into the map. */
void adopt(const BpfNode& node, int netns, const std::vector<uint64_t>& cgroups);
Napi::Object readState(Napi::Env env, const BpfNode& node);
/** Fields that are not given stay. */
void writeState(const BpfNode& node, const Fields& fields);
/** The list replaces what is there; what stays in it is never missing in between. */
void writeZtunnels(const BpfNode& node, const Napi::CallbackInfo& info);

} // namespace ambient
