// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

#include <cstdint>

#include "bpf_node.h"

namespace ambient {

/** An object that reads flow events from a ring buffer, and closes it. */
Napi::Object openEvents(Napi::Env env, int ringMap);

/** The programs tell events until this time (CLOCK_MONOTONIC, ns); 0: no more. */
void tellUntil(const BpfNode& node, uint64_t nanoseconds);

/** Events that found the ring full, since the maps were made. */
uint64_t lostEvents(const BpfNode& node);

/** Name of a verdict as metrics and events spell it. */
const char* verdictName(unsigned verdict);

} // namespace ambient
