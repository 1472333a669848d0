// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

#include <cstdint>
#include <vector>

#include "args.h"
#include "bpf_pods.h"

namespace ambient {

// Between JavaScript's values and the structures of bpf/abi.h.

/** @throws TypeError that names the value. */
uint64_t uint64Of(Napi::Value value, const char* name);
/** A netns cookie. @throws TypeError. */
uint64_t cookieAt(const Napi::CallbackInfo& info, size_t index);
/** cgroup ids. @throws TypeError. */
std::vector<uint64_t> idsAt(const Napi::CallbackInfo& info, size_t index, const char* name);
BpfPod podOf(const Args& args, size_t index, uint64_t cookie);
Napi::Object toObject(Napi::Env env, const ambient_pod& pod);
ambient_knobs knobsOf(const Fields& fields);

} // namespace ambient
